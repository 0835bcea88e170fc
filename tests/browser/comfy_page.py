"""ComfyUI in a browser, driven as a person would drive it."""

from __future__ import annotations

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from urllib.request import Request, urlopen

CHROMIUM = os.environ.get("CHROMIUM_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.NodeBadge.NodeSourceBadgeMode": "None",
}
# Errors that the editor always logs, and optional files that it asks for.
_USUAL = ("Failed to load resource", "Content Security Policy", "ComfyApp graph accessed before initialization")
_OPTIONAL = ("/userdata", "/user.css", "/en.md")

_READY = "() => window.app?.vueAppReady && window.app.graph && LiteGraph.registered_node_types.SaveImage"
_QUEUE = """async (timeout) => {
    const done = new Promise((resolve) => {
        const wait = (name, result) =>
            app.api.addEventListener(name, (event) => resolve(result(event)), { once: true });
        wait("execution_success", () => "success");
        wait("execution_error", (event) => event.detail.exception_message);
        wait("execution_interrupted", () => "interrupted");
        setTimeout(() => resolve(`not done after ${timeout} ms`), timeout);
    });
    const queued = await app.queuePrompt(0, 1);
    return queued ? await done : "refused: " + JSON.stringify(app.lastNodeErrors);
}"""
_NODES = """() => app.graph._nodes.map((node) => ({
    type: node.type,
    title: node.getTitle(),
    missing: !!node.has_errors || !LiteGraph.registered_node_types[node.type],
    inputs: (node.inputs ?? []).map((slot) => [slot.name, slot.label ?? slot.localized_name ?? slot.name]),
    outputs: (node.outputs ?? []).map((slot) => [slot.name, slot.label ?? slot.localized_name ?? slot.name]),
    widgets: (node.widgets ?? []).map((widget) => [widget.name, widget.label ?? widget.name, widget.value]),
    box: [...node.getBounding()],
}))"""
# The nodes of the graph are called by their number from 0, in the order in which they were added.
_CONNECT = """(links) => {
    const nodes = app.graph._nodes;
    for (const [origin, output, target, input] of links) {
        const find = (slots, name) => slots.findIndex((slot) => slot.name === name);
        const [from, to] = [nodes[origin], nodes[target]];
        if (!from.connect(find(from.outputs, output), to, find(to.inputs, input)))
            throw new Error(`no link from ${output} to ${input}`);
    }
}"""
_ADD = """([type, x, y]) => {
    const node = LiteGraph.createNode(type);
    node.pos = [x, y];
    app.graph.add(node);
}"""
_SHOW_ONLY = """(type) => {
    app.graph.clear();
    app.canvas.ds.reset();
    const node = LiteGraph.createNode(type);
    node.pos = [600, 300];  // beside an open panel
    app.graph.add(node);
}"""
# In pixels of the page.
_TITLE = """() => {
    const node = app.graph._nodes[0], canvas = app.canvas.canvas.getBoundingClientRect();
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + 40, node.pos[1] - 15]);
    return [canvas.left + x, canvas.top + y];
}"""
# In the graph's own coordinates, or in pixels of the page.
_CORNERS = """(onPage) => {
    const canvas = app.canvas.canvas.getBoundingClientRect();
    const groups = app.graph.groups.map((group) => [...group.pos, ...group.size]);
    const boxes = [...app.graph._nodes.map((node) => [...node.getBounding()]), ...groups];
    const place = (x, y) => app.canvas.ds.convertOffsetToCanvas([x, y]);
    const least = (axis) => Math.min(...boxes.map((box) => box[axis]));
    const most = (axis) => Math.max(...boxes.map((box) => box[axis] + box[axis + 2]));
    if (!onPage) return [least(0), least(1), most(0), most(1)];
    const [left, top] = place(least(0), least(1)), [right, bottom] = place(most(0), most(1));
    return [canvas.left + left, canvas.top + top, canvas.left + right, canvas.top + bottom];
}"""


def why_not() -> str | None:
    """What is missing for this module to work, if anything is."""
    if find_spec("playwright") is None:
        return "no playwright: pip install playwright"
    if CHROMIUM is None:
        return "no Chromium: install it, or name it in CHROMIUM_PATH"
    return None


def launch(playwright):
    """A Chromium without a window."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


class ComfyPage:
    """A page with ComfyUI's editor in it.

    Attributes
    ----------
    page : playwright.sync_api.Page
    locale : str
    complaints : list of str
        Errors in the browser's console and answers of 400 and above since the editor was ready, without the usual ones.
    """

    def __init__(self, browser, url: str, locale: str = "en"):
        self._browser, self._url = browser, url
        for name, value in (SETTINGS | {"Comfy.Locale": locale}).items():
            self._post(f"settings/{name}", value)
        self.locale = locale
        self.complaints: list[str] = []
        self._open()

    def _post(self, path: str, value) -> None:
        body = json.dumps(value).encode()
        urlopen(Request(f"{self._url}/{path}", body, {"Content-Type": "application/json"})).close()

    def _open(self) -> None:
        self.page = self._browser.new_page(viewport={"width": 1600, "height": 1000})
        self.page.set_default_timeout(180_000)
        self.page.goto(self._url)
        self.page.wait_for_function(_READY)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._log)
        self.page.on("response", self._answer)

    def start_over(self) -> None:
        """Stop the server's runs, and open a new page, where nothing is left of the old one."""
        self.close()
        self._post("queue", {"clear": True})
        self._post("interrupt", {})
        self._open()

    def _log(self, message) -> None:
        if message.type == "error" and not any(usual in message.text for usual in _USUAL):
            self.complaints.append(message.text)

    def _answer(self, response) -> None:
        if response.status >= 400 and not any(optional in response.url for optional in _OPTIONAL):
            self.complaints.append(f"{response.status} {response.url}")

    def close(self) -> None:
        self.page.close()

    def command(self, name: str) -> None:
        self.page.evaluate("(name) => app.extensionManager.command.execute(name)", name)

    def open_template(self, pack: str, name: str) -> None:
        """Choose a template of a pack in the template browser."""
        self.page.evaluate("() => app.graph.clear()")
        self.command("Comfy.BrowseTemplates")
        self.page.get_by_role("button", name=pack, exact=True).click()
        card = self.page.get_by_test_id(f"template-workflow-{name}")
        card.click()
        card.wait_for(state="detached")
        self.page.wait_for_function("() => app.graph._nodes.length > 0")

    def load(self, graph: dict, name: str = "graph") -> None:
        """Open a graph in the UI format; one in the API format is laid out anew."""
        if "nodes" in graph:
            self.page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [graph, name])
        else:
            self.page.evaluate("([graph, name]) => app.loadApiJson(graph, name)", [graph, name])
            self.page.evaluate("() => app.graph.arrange()")

    def place_blueprint(self, name: str, x: float, y: float) -> None:
        """Choose a subgraph blueprint in the node library, and put it on the page."""
        library = self.page.locator(".sidebar-content-container")
        search = library.get_by_role("combobox")  # its placeholder depends on the frontend's version
        if not search.count():
            self.command("Workspace.ToggleSidebarTab.node-library")
        search.fill(name)
        before = len(self.nodes())
        library.get_by_role("treeitem").get_by_text(name, exact=True).click()
        self.page.mouse.click(x, y)
        self.page.wait_for_function("(before) => app.graph._nodes.length > before", arg=before)

    def add(self, kind: str, x: float = 0, y: float = 0) -> None:
        """Add a node at a place of the graph."""
        self.page.evaluate(_ADD, [kind, x, y])

    def connect(self, *links: tuple[int, str, int, str]) -> None:
        """Link nodes: number and output of one, number and input of another, in the order of `nodes`."""
        self.page.evaluate(_CONNECT, links)

    def set_widget(self, node: int, name: str, value) -> None:
        """Set a widget of the node of this number."""
        script = (
            "([node, name, value]) => { app.graph._nodes[node].widgets.find((w) => w.name === name).value = value }"
        )
        self.page.evaluate(script, [node, name, value])

    def app_inputs(self) -> list[str]:
        """The labels of the inputs in App Mode; none where the graph is in view."""
        return self.page.get_by_test_id("linear-widgets").get_by_test_id("builder-widget-label").all_inner_texts()

    def app_results(self) -> int:
        """The number of results of this graph's runs that App Mode has in its list."""
        return self.page.get_by_test_id("linear-history-item").count()

    def nodes(self) -> list[dict]:
        """Type, title, `missing` and bounding `box` of each node; name, shown name, value of its slots and widgets."""
        return self.page.evaluate(_NODES)

    def queue(self, timeout: float = 900) -> str:
        """Run the graph, for so many seconds at most; "success", or what went wrong."""
        return self.page.evaluate(_QUEUE, round(1000 * timeout))

    def only_node(self, kind: str) -> dict:
        """Replace the graph by one new node."""
        self.page.evaluate(_SHOW_ONLY, kind)
        return self.nodes()[0]

    def help(self, kind: str, heading: str) -> str:
        """Open a node's help page in the panel beside the graph; its text, once it has the heading."""
        info = self.page.get_by_test_id("info-button")
        for _ in range(20):  # a graph that the editor opens of its own accord may come in between
            self.only_node(kind)
            self.page.mouse.click(*self.page.evaluate(_TITLE))
            self.page.wait_for_timeout(600)  # two clicks in quick succession would edit the title
            if info.count():
                break
        info.click()
        content = self.page.locator(
            ".node-help-content", has=self.page.get_by_role("heading", name=heading, exact=True)
        )
        content.wait_for()
        return content.inner_text()

    def serialize(self) -> dict:
        """The graph in the UI format, as a workflow file holds it."""
        return self.page.evaluate("() => app.graph.serialize()")

    def screenshot(self, path: str | os.PathLike, margin: int = 24) -> None:
        """Save an image of the graph as it lies in the editor, without the panels around it."""
        if self.app_inputs():
            self.command("Comfy.ToggleLinear")
        panel = self.page.locator("[data-testid=properties-panel] button[aria-pressed=true]")
        if panel.count():
            panel.click()
        usual = self.page.viewport_size
        left, top, right, bottom = self.page.evaluate(_CORNERS, False)
        # As large as it takes to show it at its own size: the editor leaves the text out of nodes that are too small.
        self.page.set_viewport_size(
            {"width": max(1600, round(right - left) + 300), "height": max(1000, round(bottom - top) + 300)}
        )
        self.page.wait_for_timeout(500)
        self.command("Comfy.Canvas.FitView")
        self.page.wait_for_timeout(1000)  # the view glides there
        left, top, right, bottom = self.page.evaluate(_CORNERS, True)
        clip = {"x": left - margin, "y": top - margin, "width": right - left, "height": bottom - top}
        clip["width"] += 2 * margin
        clip["height"] += 2 * margin
        # Videos begin with nothing, one object after the other appears.
        self.page.evaluate("document.querySelectorAll('video').forEach(v => { v.pause(); v.currentTime = v.duration })")
        self.page.wait_for_timeout(500)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path, clip=clip, style=".p-toast, [data-testid^=queue-progress] {display: none}")
        self.page.set_viewport_size(usual)
