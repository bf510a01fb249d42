# docs/commands.md holds what the command itself says: each block that begins with "$ evenkeel help ..." or
# "$ evenkeel summary ..." is run again and must come out the same.
#   bash tests/commands/help.sh BUILD --update    writes the document anew
update=${2:-}
source "$(dirname "$0")/testing.bash"

document=$project/docs/commands.md
EVENKEEL=$evenkeel EVENKEEL_ISA=baseline awk '
    running && /^```$/ { running = 0 }
    /^\$ evenkeel (help|summary|--version)/ {
        print
        fflush()
        system("exec \"$EVENKEEL\" " substr($0, length("$ evenkeel ") + 1) " 2>&1")
        running = 1
    }
    !running { print }
' "$document" >expected.md

if [ "$update" = --update ]; then
    cp expected.md "$document"
elif ! diff "$document" expected.md >&2; then
    fail "docs/commands.md is not what the command says; bring it up to date: bash $0 BUILD --update"
fi

# Every command has its help in the document, and all ways to ask for it agree.
for name in train rerun report compare eval predict run summary inspect audit recalibrate fold convert bench; do
    grep -qF "\$ evenkeel help $name" "$document" || fail "docs/commands.md lacks the help of $name"
    exits 0 "$name" --help
    silent err
    cp out long
    exits 0 "$name" -h
    same out long
    exits 0 help "$name"
    same out long
    says out "Examples:"
done
exits 0 --help
cp out long
exits 0 help
same out long
exits 0 --version
says out "evenkeel 0."
finish
