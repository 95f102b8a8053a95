"""The operator's page in a browser: what it shows is what the server counts.

Pictures of it are left in bench-out/page.
"""

import contextlib
import json
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright
from tritonclient.grpc import service_pb2_grpc

import harness
import messages

PICTURES = harness.ROOT / "bench-out" / "page"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
FOREVER = 10**9

expect.set_options(timeout=harness.PATIENCE * 1000)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page that complains about nothing and asks nobody but the server that it came from."""
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.set_default_timeout(harness.PATIENCE * 1000)
    page.complaints, page.asked = [], []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda line: page.complaints.append(line.text))
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    assert page.complaints == []
    origins = {"/".join(url.split("/")[:3]) for url in page.asked}
    assert len(origins) <= 1, origins
    context.close()


def told(server, path):
    with urllib.request.urlopen(f"http://{server.admin}{path}", timeout=harness.PATIENCE) as answer:
        return answer.headers, answer.read().decode()


def model(page, key):
    return page.locator(f'details[id="{key}"]')


def value(page, key, name):
    return model(page, key).locator(f'[data-value="{name}"]')


def state(page, key):
    return model(page, key).locator("summary .badge")


def bar(page, key, name):
    return model(page, key).locator(f'[data-bar="{name}"] .number')


def opened(page, key):
    """The details of a model, opened if they are not."""
    if model(page, key).get_attribute("open") is None:
        model(page, key).locator("summary").click()


def rows(name, count):
    return messages.request(name, [("x", np.ones((count, 64), np.float32))])


def busy(iterations):
    x = np.ones((1, 1), np.float32)
    return messages.request("loop_busy", [("x", x), ("iterations", np.array(iterations, np.int64))])


def division(by):
    a, b = np.ones((1, 1), np.int32), np.full((1, 1), by, np.int32)
    return messages.request("int_divide", [("a", a), ("b", b)])


@pytest.fixture
def served(tmp_path):
    """A model that is well, one that is too slow, one that fails at times, one that cannot load."""
    harness.copy_models(tmp_path, "mlp_tiny", "loop_busy", "int_divide", "broken")
    (tmp_path / "loop_busy" / "model.toml").write_text('batching = "off"\nmax_queue_jobs = 4\n')
    server = harness.Server(tmp_path)
    yield server
    server.kill()


def count(server, key, outcome):
    return int(server.metric("onnxd_requests_total", model=key, outcome=outcome))


def load(server, stub):
    """Something of everything; calls that are held, for whoever lets them go."""
    for size in [1, 1, 1, 3, 8]:
        stub.ModelInfer(rows("mlp_tiny", size), timeout=harness.PATIENCE)
    with ThreadPoolExecutor(16) as callers:
        send = lambda _: stub.ModelInfer(rows("mlp_tiny", 2), timeout=harness.PATIENCE)
        list(callers.map(send, range(400)))
    refused(stub, division(0))
    refused(stub, messages.request("mlp_tiny"))
    # One runs, four wait, the others find no place.
    hold = lambda: stub.ModelInfer.future(busy(FOREVER), timeout=5 * harness.PATIENCE)
    now = lambda name: server.metric(name, model="loop_busy")
    held = [hold()]
    harness.wait_until(lambda: now("onnxd_running") == 1, "one runs")
    held += [hold() for _ in range(4)]
    harness.wait_until(lambda: now("onnxd_queue_jobs") == 4, "four wait")
    for _ in range(7):
        refused(stub, busy(FOREVER))
    return held


def refused(stub, request):
    with pytest.raises(grpc.RpcError):
        stub.ModelInfer(request, timeout=5 * harness.PATIENCE)


@contextlib.contextmanager
def going_on(stub):
    """Goes on sending one that is answered and one that finds no place; how many of each."""
    sent, enough = [], threading.Event()

    def send():
        while not enough.wait(0.05):
            sent.append(stub.ModelInfer(rows("mlp_tiny", 1), timeout=harness.PATIENCE))
            refused(stub, busy(FOREVER))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield sent
    finally:
        enough.set()
        sender.join()


def let_go(server, held):
    for call in held:
        call.cancel()
    gone = lambda: server.metric("onnxd_running") + server.metric("onnxd_queue_jobs") == 0
    harness.wait_until(gone, "nothing runs or waits")


def look_at_load(page):
    """Live, and clear about what is wrong."""
    expect(value(page, "mlp_tiny/1", "answered")).not_to_have_text("0/s")
    expect(value(page, "loop_busy/1", "waiting")).to_have_text("4")
    expect(page.locator('[data-tile="waiting"] b')).to_have_text("4")
    expect(state(page, "loop_busy/1")).to_have_text("Overloaded")
    expect(state(page, "int_divide/1")).to_have_text("Failing")
    expect(state(page, "mlp_tiny/1")).to_have_text("Ready")
    problem = page.locator("#problems li", has_text="loop_busy/1 refuses")
    expect(problem).to_contain_text("its queue or the memory for requests is full")
    # A problem leads to its model.
    problem.locator("a").click()
    expect(model(page, "loop_busy/1")).to_have_attribute("open", "")
    opened(page, "mlp_tiny/1")
    take_pictures(page, "busy")


def test_what_is_shown_is_what_is_counted(served, page):
    page.goto(f"http://{served.admin}/")
    expect(state(page, "broken/1")).to_have_text("Does not serve")
    expect(page.locator("#verdict")).to_have_text("Needs attention")
    expect(page.locator("#problems")).to_contain_text("broken/1 does not serve")
    expect(value(page, "mlp_tiny/1", "answered")).to_have_text("0/s")
    with grpc.insecure_channel(served.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        held = load(served, stub)
        with going_on(stub) as sent:
            look_at_load(page)
        let_go(served, held)
    page.get_by_label("all since start").check()
    opened(page, "int_divide/1")
    for key, outcomes in {
        "mlp_tiny": {"ok": 405 + len(sent), "invalid": 1},
        "loop_busy": {"full": 7 + len(sent), "cancelled": 5},
        "int_divide": {"failed": 1},
    }.items():
        for outcome, wanted in outcomes.items():
            assert count(served, key, outcome) == wanted
            expect(bar(page, f"{key}/1", outcome)).to_have_text(f"{wanted:,}")
    assert served.metric("onnxd_rows_total", model="mlp_tiny") == 814 + len(sent)
    all_rows = f"{814 + len(sent):,} since start"
    expect(page.locator('[data-tile="rows"] .note')).to_have_text(all_rows)
    runs = f"{int(served.metric('onnxd_batch_rows_count', model='mlp_tiny')):,} runs"
    expect(model(page, "mlp_tiny/1")).to_contain_text(runs)
    status = json.loads(told(served, "/status")[1])
    (mlp,) = [each["served"] for each in status["models"] if each["name"] == "mlp_tiny"]
    ones = sum(runs for rows, runs in mlp["run_rows"] if rows == 1)
    expect(bar(page, "mlp_tiny/1", "1")).to_have_text(f"{ones:,}")
    for kind in ("request", "queue", "execution"):
        for part in (50, 90, 99):
            cell = model(page, "mlp_tiny/1").locator(f'[data-time="{kind} p{part}"]')
            micros = percentile(mlp[f"{kind}_micros"], part / 100)
            expect(cell).to_have_text(time(micros))
            # The metrics count the same, in coarser steps.
            assert bucket_of(served, f"onnxd_{kind}_seconds", part / 100) >= micros / 1.126e6


def percentile(pairs, part):
    wanted, seen = part * sum(count for _, count in pairs), 0
    for micros, count in pairs:
        seen += count
        if seen >= wanted:
            return micros
    raise AssertionError("no counts")


def time(micros):
    for unit, scale in [("µs", 1), ("ms", 1e3), ("s", 1e6)]:
        if micros < 999.5 * scale:
            break
    return f"{micros / scale:.3g} {unit}"


def bucket_of(server, name, part):
    """The bound of the bucket of a histogram where so large a share of its counts is reached."""
    wanted = part * server.metric(f"{name}_count", model="mlp_tiny")
    bounds = []
    for line in told(server, "/metrics")[1].splitlines():
        if line.startswith(f"{name}_bucket{{") and 'model="mlp_tiny"' in line:
            bound = line.split('le="')[1].split('"')[0]
            bounds.append((float(bound.replace("+Inf", "inf")), float(line.split()[-1])))
    return next(bound for bound, count in sorted(bounds) if count >= wanted)


def test_calm_when_nothing_happens_and_by_keyboard(tmp_path, page):
    harness.copy_models(tmp_path, "magika", "silero-vad", source=harness.MODELS)
    # Time enough to measure more than one row, however slow the machine.
    server = harness.Server(tmp_path, "--strict", "--warmup-ms", "3000")
    try:
        page.goto(f"http://{server.admin}/")
        expect(page.locator("#verdict")).to_have_text("All is well")
        expect(page.locator("#announcement")).to_have_text("All is well")
        expect(page.locator("#problems")).to_be_hidden()
        # Few models are open from the start; what rows cost is plotted, the chosen size marked.
        plot = model(page, "silero-vad/1").get_by_role("img", name="Time a row takes")
        expect(plot).to_be_visible()
        costs = json.loads(told(server, "/costs")[1])
        (silero,) = [each for each in costs["models"] if each["name"] == "silero-vad"]
        assert plot.locator("circle.ring").count() == len(silero["row_costs"])
        chosen = silero["row_costs"][0]["rows"]
        shown = {point["rows"] for point in silero["points"]} | {chosen}
        assert plot.locator(".hit").count() == len(shown)
        assert plot.locator("circle.ring + .hit title").text_content().startswith(f"{chosen} row")
        take_pictures(page, "calm")
        summary = model(page, "magika/1").locator("summary")
        for _ in range(12):
            page.keyboard.press("Tab")
            if summary.evaluate("node => node === document.activeElement"):
                break
        expect(summary).to_be_focused()
        page.keyboard.press("Enter")
        expect(model(page, "magika/1")).not_to_have_attribute("open", "")
        policy = told(server, "/")[0]["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
        # The browser complains about a server that is gone; the page says it in words.
        assert page.complaints == []
        server.stop()
        expect(page.locator("#verdict")).to_have_text("No answer")
        assert all("ERR_" in each for each in page.complaints)
    finally:
        server.kill()
        page.goto("about:blank")
        page.complaints.clear()


def test_rates_are_differences_and_nobody_is_asked_for_a_hidden_page(served, page):
    """With a clock and answers of the test's own, rates are exact."""
    page.clock.install(time=0)
    page.clock.pause_at(1000)
    status = json.loads(told(served, "/status")[1])
    (mlp,) = [each for each in status["models"] if each["name"] == "mlp_tiny"]
    status["models"] = [mlp]
    asked, seconds = [], 0

    def answer(route):
        asked.append(route)
        sums = mlp["served"]
        sums["requests"]["ok"] = 50 * seconds
        sums["requests"]["congested"] = 25 * seconds
        sums["rows"] = 1000 * seconds
        sums["busy_seconds"] = 0.25 * seconds
        sums["request_micros"] = [[96, 49 * seconds], [4096, seconds]]
        route.fulfill(json=status | {"uptime_seconds": 1 + seconds})

    # Shown, and the next look is due.
    shown = lambda: expect(page.locator("#facts")).to_contain_text(f"up {1 + seconds} s")

    page.route("**/status", answer)
    page.goto(f"http://{served.admin}/")
    shown()
    for pause in [1] + 9 * [2]:
        seconds += pause
        page.clock.run_for(pause * 1000)
        shown()
    expect(value(page, "mlp_tiny/1", "answered")).to_have_text("50/s")
    expect(value(page, "mlp_tiny/1", "unanswered")).to_have_text("25/s")
    expect(value(page, "mlp_tiny/1", "rows")).to_have_text("1,000/s")
    expect(value(page, "mlp_tiny/1", "busy")).to_have_text("25 %")
    expect(value(page, "mlp_tiny/1", "p99")).to_have_text("4.1 ms")
    expect(page.locator("#problems li")).to_have_text(
        "mlp_tiny/1 refuses 25 requests a second, 33.3 % of all: they could not be answered in time."
        " More instances or replicas would take them."
    )
    hide = """hidden => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    page.clock.run_for(60_000)
    assert page.evaluate("document.hidden") and len(asked) == 11, "nobody looks"
    seconds += 60
    page.evaluate(hide, False)
    expect(page.locator("#facts")).to_contain_text("up 1 min 20 s")


def test_credentials_are_asked_for_and_kept_nowhere(tmp_path, page):
    models = tmp_path / "models"
    harness.copy_models(models, "mlp_tiny", "int_divide")
    made = harness.onnxd("token", "ci").stdout
    token, lines = made.splitlines()[1], made.split("\n\n", 1)[1]
    grant = '[[grant]]\nto = ["token:ci"]\nmodels = ["mlp*"]\nrights = ["describe"]\n'
    access = tmp_path / "access.toml"
    access.write_text(f"{lines}\n{grant}")
    server = harness.Server(models, "--access-file", str(access))
    try:
        page.goto(f"http://{server.admin}/")
        # States are for everybody who probes.
        expect(state(page, "int_divide/1")).to_have_text("Ready")
        expect(page.locator("#totals")).to_be_hidden()
        denied = lambda: server.metric("onnxd_denied_total")
        assert denied() == 1, "asked once, and not again without a token"
        page.get_by_label("Token").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#refusal")).to_contain_text("does not know this token")
        take_pictures(page, "access")
        page.get_by_label("Token").fill(token)
        page.keyboard.press("Enter")
        expect(page.locator("#totals")).to_be_visible()
        expect(page.locator("#access")).to_be_hidden()
        expect(state(page, "mlp_tiny/1")).to_have_text("Ready")
        assert model(page, "int_divide/1").count() == 0, "the caller may not know of it"
        assert denied() == 2
        kept = "[localStorage.length, sessionStorage.length, document.cookie, location.href]"
        assert page.evaluate(kept) == [0, 0, "", f"http://{server.admin}/"]
        assert token not in page.content()
        # The browser tells of the two refusals; the page has said it in words.
        assert all("401" in each for each in page.complaints), page.complaints
        page.complaints.clear()
    finally:
        server.kill()
        page.goto("about:blank")
        page.complaints.clear()


def take_pictures(page, name):
    """Light and dark, wide and on a phone; nothing may stand out to the side."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for size, viewport in {"wide": WIDE, "phone": PHONE}.items():
        page.set_viewport_size(viewport)
        widest = page.evaluate("document.documentElement.scrollWidth")
        assert widest <= viewport["width"], f"{name} on {size} is {widest} wide"
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=PICTURES / f"{name}-{size}-{scheme}.png", full_page=True)
    page.set_viewport_size(WIDE)
