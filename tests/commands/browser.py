"""A report page in headless Chromium, by the DevTools protocol over a pipe: no console error and nothing fetched;
pointer, finger and keys show values; series are switched off and on; what is saved as CSV is what the page holds.

    browser.py FOLDER PAGE...    checks them; saves screenshots and a PDF to FOLDER for somebody to look at
"""
import base64
import csv
import html
import json
import os
import pathlib
import re
import select
import shutil
import subprocess
import sys
import time

LIMIT = 60  # seconds that anything may take


class Browser:
    """Commands go to descriptor 3 of the browser, answers and events come from 4, each ended by a zero."""

    def __init__(self, program, profile):
        command_read, self.write = os.pipe()
        self.read, answer_write = os.pipe()

        def place():
            first, second = os.dup(command_read), os.dup(answer_write)
            os.dup2(first, 3)
            os.dup2(second, 4)

        flags = ["--headless", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars",
                 "--disable-dev-shm-usage", "--force-prefers-reduced-motion", f"--user-data-dir={profile}"]
        if os.getuid() == 0:
            flags.append("--no-sandbox")
        self.process = subprocess.Popen([program, *flags], preexec_fn=place, close_fds=False,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(command_read)
        os.close(answer_write)
        self.number, self.buffer, self.events, self.session = 0, b"", [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log", "Network"):
            self.call(part + ".enable")

    def message(self):
        end = time.monotonic() + LIMIT
        while b"\0" not in self.buffer:
            if not select.select([self.read], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser says nothing")
            more = os.read(self.read, 1 << 20)
            if not more:
                raise EOFError("the browser ended")
            self.buffer += more
        text, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(text)

    def call(self, method, **params):
        self.number += 1
        command = {"id": self.number, "method": method, "params": params}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.write, json.dumps(command).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def open(self, path):
        self.events.clear()
        self.call("Page.navigate", url=pathlib.Path(path).resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.message())
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def mouse(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, place):
        self.mouse("mousePressed", *place, button="left", clickCount=1)
        self.mouse("mouseReleased", *place, button="left", clickCount=1)

    def key(self, key, text=""):
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, text=text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    def size(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.evaluate("new Promise((done) => setTimeout(done, 50))")

    def media(self, kind, scheme):
        self.call("Emulation.setEmulatedMedia", media=kind, features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path):
        height = self.evaluate("document.documentElement.scrollHeight")
        width = self.evaluate("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, 4000), "scale": 1}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
        except (EOFError, OSError):
            pass
        self.process.wait(LIMIT)


def check(truth, words):
    if not truth:
        raise AssertionError(words)


def pictures(page):
    """What the file itself holds: (title, data) of each picture."""
    found = []
    for figure in re.findall(r'<figure class="chart">(.*?)</figure>', page, re.S):
        title = html.unescape(re.search(r'<span class="title">(.*?)</span>', figure, re.S).group(1))
        found.append((title, json.loads(re.search(r'<script type="application/json">(.*?)</script>', figure, re.S).group(1))))
    return found


def expected_csv(data):
    """The rows that the picture should save, from its data alone."""
    if data["kind"] == "bars":
        return [[data["x"] or "name", data["y"] or "value"]] + [[a, b] for a, b in zip(data["labels"], data["values"])]
    header, cells, x = [data["x"] or "x"], {}, None
    for series in data["series"]:
        x = series.get("x", x)
        for key, suffix in (("y", ""), ("low", " low"), ("high", " high")):
            if key in series:
                header.append(series["name"] + suffix)
                for place, value in zip(x, series[key]):
                    cells.setdefault(place, {})[len(header) - 1] = value
    return [header] + [[place] + [cells[place].get(i) for i in range(1, len(header))] for place in sorted(cells)]


def same_cell(expected, found):
    if expected is None:
        return found == ""
    if isinstance(expected, (int, float)):
        return found != "" and float(found) == expected
    return found == expected


def figure(kind, index, rest=""):
    return f"document.querySelectorAll('figure.{kind}')[{index}].querySelector(`{rest}`)"


def middle(browser, element, across=0.5):
    """The place on the screen of an element, scrolled into view."""
    return browser.evaluate(f"""(() => {{
        const element = {element};
        element.scrollIntoView({{block: 'center'}});
        const box = element.getBoundingClientRect();
        return [box.left + box.width * {across}, box.top + box.height / 2];
    }})()""")


def tip(browser, index):
    """The text that the index-th picture shows beside the cursor; None: none."""
    return browser.evaluate(f"(() => {{ const tip = {figure('chart', index, '.values')};"
                            "return tip.hidden ? null : tip.textContent; })()")


def shown(value):
    """As the page writes whole numbers."""
    return f"{int(value):,}".replace("-", "\u2212")


def check_errors(browser):
    for event in browser.events:
        method, params = event.get("method"), event.get("params", {})
        check(method != "Runtime.exceptionThrown", f"an exception: {params}")
        check(method != "Runtime.consoleAPICalled", f"on the console: {params}")
        check(method != "Log.entryAdded", f"in the log: {params}")
        if method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            check(url.startswith(("file:", "data:", "blob:")), f"the page asked for {url}")


def has_values(data):
    if data["kind"] == "bars":
        return len(data["labels"]) > 0
    return any(v is not None and (not data["logY"] or v > 0) for series in data["series"] for v in series.get("y", series.get("low", [])))


def check_hover(browser, index, data):
    picture = figure("chart", index, ".plot > svg")
    check(tip(browser, index) is None, "values are shown before anybody asks")
    browser.mouse("mouseMoved", *middle(browser, picture, 0.7))
    text = tip(browser, index)
    check(text, "hovering shows nothing")
    if data["kind"] == "lines":
        for series in data["series"]:
            check(series["name"] in text, f"hovering does not show {series['name']}: {text}")
        places = [x for series in data["series"] for x in series.get("x", []) if x is not None]
        check(any((data["x"] or "x") + " " + shown(x) in text for x in places if float(x).is_integer()) or
              not any(float(x).is_integer() for x in places), f"hovering shows no place: {text}")
    browser.mouse("mouseMoved", 1, 1)
    check(tip(browser, index) is None, "the values stay when the pointer leaves")
    browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[dict(zip("xy", middle(browser, picture, 0.6)))])
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    check(tip(browser, index), "a finger shows nothing")
    browser.evaluate(picture + ".focus()")
    browser.key("Escape")
    check(tip(browser, index) is None, "Escape does not take the values away")
    browser.key("ArrowRight")
    first = tip(browser, index)
    browser.key("ArrowRight")
    second = tip(browser, index)
    points = len(data["labels"]) if data["kind"] == "bars" else len(expected_csv(data)) - 1
    check(first and (first != second or points == 1), f"arrow keys do not go from point to point: {first}, {second}")
    browser.key("Escape")


def drawn(browser, index):
    return browser.evaluate(f"document.querySelectorAll('figure.chart')[{index}]"
                            ".querySelectorAll('.plot > svg > g > .line, .plot > svg > g > .band').length")


def check_switching(browser, index, data):
    count = len(data["series"])
    buttons = f"document.querySelectorAll('figure.chart')[{index}].querySelectorAll('.legend button')"
    check(browser.evaluate(buttons + ".length") == (count if count > 1 else 0), "the legend has not one entry a series")
    if count < 2:
        return
    before, name = drawn(browser, index), data["series"][-1]["name"]
    last = f"{buttons}[{count - 1}]"
    browser.click(middle(browser, last))
    check(browser.evaluate(last + ".getAttribute('aria-pressed')") == "false", "the entry is not switched off")
    check(drawn(browser, index) < before, "the series is still drawn")
    if any(has_values({**data, "series": [series]}) for series in data["series"][:-1]):
        browser.mouse("mouseMoved", *middle(browser, figure("chart", index, ".plot > svg"), 0.7))
        rows = browser.evaluate(f"[...document.querySelectorAll('figure.chart')[{index}].querySelectorAll('.values .name')].map((e) => e.textContent)")
        check(len(rows) == count - 1 and name not in rows, f"a series that is off has values: {rows}")
        browser.mouse("mouseMoved", 1, 1)
    browser.evaluate(last + ".focus()")
    browser.key("Enter", "\r")
    check(drawn(browser, index) == before, "the key does not bring the series back")


def saved(browser, folder, kind, index):
    """What the figure's button saves, as rows."""
    for old in folder.glob("*"):
        old.unlink()
    browser.events.clear()
    browser.click(middle(browser, figure(kind, index, ".save")))
    done = lambda event: event.get("method") == "Browser.downloadProgress" and event["params"]["state"] == "completed"
    while not any(map(done, browser.events)):
        browser.events.append(browser.message())
    files = list(folder.glob("*"))
    check(len(files) == 1 and files[0].suffix == ".csv", f"saved as {files}")
    with open(files[0], newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def check_saved(rows, expected):
    check(len(rows) == len(expected), f"{len(rows)} rows in the CSV, not {len(expected)}")
    for row, wanted in zip(rows, expected):
        check(len(row) == len(wanted) and all(map(same_cell, wanted, row)), f"in the CSV {row}, not {wanted}")


def check_tables(browser, page, folder):
    for index, text in enumerate(re.findall(r'<figure class="table">(.*?)</figure>', page, re.S)):
        rows = [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)]
                for row in re.findall(r"<tr>(.*?)</tr>", text, re.S)]
        check_saved(saved(browser, folder, "table", index), rows)


def look(browser, folder, name):
    """Wide and narrow, light and dark, and in print: nothing is wider than the screen, and colours follow."""
    colours = set()
    for width in (1200, 390):
        for scheme in ("light", "dark"):
            browser.size(width, 800)
            browser.media("screen", scheme)
            wide = browser.evaluate("document.documentElement.scrollWidth")
            check(wide <= width, f"{wide} pixels wide on a screen of {width}")
            figures = browser.evaluate("[...document.querySelectorAll('.plot > svg')].map((svg) => [svg.viewBox.baseVal.width, svg.clientWidth])")
            check(all(abs(a - b) < 2 for a, b in figures), "pictures are not drawn for their width")
            colours.add((scheme, browser.evaluate("getComputedStyle(document.body).backgroundColor")))
            browser.screenshot(folder / f"{name}-{width}-{scheme}.png")
    check(len(colours) == 2 and len({colour for _, colour in colours}) == 2, f"light and dark look alike: {colours}")
    browser.size(1200, 800)
    browser.media("", "dark")
    pdf = browser.call("Page.printToPDF", printBackground=True)["data"]
    (folder / f"{name}.pdf").write_bytes(base64.b64decode(pdf))
    widths = browser.evaluate("[...document.querySelectorAll('.plot > svg')].map((svg) => [svg.viewBox.baseVal.width, svg.clientWidth])")
    check(all(abs(a - b) < 2 for a, b in widths), "pictures have the width of print after it")
    browser.media("print", "dark")
    check(browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)", "print is dark")
    check(browser.evaluate("[...document.querySelectorAll('.save')].every((e) => getComputedStyle(e).display === 'none')"),
          "buttons are printed")
    browser.media("screen", "light")


def check_without_script(browser, path, page):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.call("Page.navigate", url=pathlib.Path(path).resolve().as_uri())
    browser.events.clear()
    while not any(event.get("method") == "Page.loadEventFired" for event in browser.events):
        browser.events.append(browser.message())
    text = browser.evaluate("document.querySelector('main').innerText")
    check("switched off" in text, "without scripts nothing says so")
    for cell in re.findall(r"<td[^>]*>([^<&]+)</td>", page):
        check(cell in text, f"without scripts the table lacks {cell}")
    browser.call("Emulation.setScriptExecutionDisabled", value=False)


def check_page(browser, path, folder, downloads):
    page = pathlib.Path(path).read_text(encoding="utf-8")
    browser.size(1200, 800)
    browser.open(path)
    check_errors(browser)
    found = pictures(page)
    check(found, "there is no picture")
    check(browser.evaluate("document.querySelectorAll('figure.chart').length") == len(found), "a picture is missing")
    for index, (title, data) in enumerate(found):
        try:
            svg = browser.evaluate(f"!!{figure('chart', index, '.plot > svg')}")
            check(svg == has_values(data), "drawn without values, or not drawn")
            if svg:
                check_hover(browser, index, data)
            if svg and data["kind"] == "lines":
                check_switching(browser, index, data)
            if index < 8:
                check_saved(saved(browser, downloads, "chart", index), expected_csv(data))
        except AssertionError as error:
            raise AssertionError(f"picture {index}, {title}: {error}") from error
    check_tables(browser, page, downloads)
    check_errors(browser)
    look(browser, folder, pathlib.Path(path).stem)
    check_without_script(browser, path, page)


def main():
    folder, pages = pathlib.Path(sys.argv[1]), sys.argv[2:]
    downloads, profile = folder / "downloads", folder / "profile"
    downloads.mkdir(parents=True, exist_ok=True)
    browser = Browser(shutil.which("chromium"), profile)
    try:
        browser.session, session = None, browser.session
        browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads.resolve()), eventsEnabled=True)
        browser.session = session
        for page in pages:
            check_page(browser, page, folder, downloads)
    finally:
        browser.close()
        shutil.rmtree(profile, ignore_errors=True)


if __name__ == "__main__":
    main()
