"""The links of README and docs lead somewhere, and so do the code's citations of docs/spec.md."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(document):
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path) if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_cited_sections_exist():
    headings = re.findall(r"^#+ (?:(VD) )?([\d.]+?)\.? ", (ROOT / "docs" / "spec.md").read_text(encoding="utf-8"), re.M)
    cited = {}
    for file in (path for folder in ("codi_backend", "nodes", "tests") for path in (ROOT / folder).rglob("*.py")):
        citations = re.findall(r"SPEC(_VD)? sections? (\d[\d., andto]*)", file.read_text(encoding="utf-8"))
        for versatile, numbers in citations:
            for number in re.findall(r"\d+(?:\.\d+)?", numbers):
                cited[("VD" if versatile else "", number)] = file.name
    assert len(cited) > 15
    assert not {section: file for section, file in cited.items() if section not in headings}
