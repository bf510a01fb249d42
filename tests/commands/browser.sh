# Report pages in headless Chromium: they render without an error, values are shown, series are switched, CSV is saved.
# Skipped where there is no chromium (scripts/install-deps.sh browser).
#   EVENKEEL_SCREENSHOTS=DIR bash tests/commands/browser.sh BUILD    keeps the screenshots
source "$(dirname "$0")/testing.bash"
for tool in chromium /usr/bin/python3; do
    command -v $tool >/dev/null || { echo "skipped: there is no $tool; scripts/install-deps.sh browser"; exit 77; }
done
small_net >small.net
build=$(dirname "$evenkeel")
EVENKEEL_TEST_PAGE=$PWD/parts.html "$build/tests/test_report" >test_report.out 2>&1 || fail "test_report wrote no page"
exits 0 train small.net --data synthetic:20 --epochs 2 --valid 0.1 --out a.safetensors --report training.html
shots=${EVENKEEL_SCREENSHOTS:-$PWD/shots}
mkdir -p "$shots"
command="browser.py"
PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$project/tests/commands/browser.py" "$shots" parts.html training.html || fail "the browser is not content"
finish
