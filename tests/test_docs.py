"""README and docs stay easy to read: their sentences are short, and their links lead somewhere."""

import re
from statistics import median

from helpers import ROOT

NOT_PROSE = re.compile(r"```.*?```|<!--.*?-->|^(?: {4}|\||#|!\[)[^\n]*", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[((?:[^][]|\[[^]]*\])*)\]\(([^)\s]+)\)")
END = re.compile(r"(?<=[.!?])[*\")]*\s+(?=[\"*(`]*[A-Z0-9])|\n\s*\n|\n(?=[-*] |\d+\. )")


def sentences(text):
    """The words of each sentence of a Markdown page, without its tables, headings, pictures and code."""
    prose = re.sub(r"`[^`]*`", "CODE", LINK.sub(r"\1", NOT_PROSE.sub("\n\n", text))).replace("et al. ", "et al ")
    return [found.split() for found in END.split(prose) if re.search(r"\w", found)]


def leads_somewhere(page, target):
    """Whether a relative link of a page names a file and, after #, a heading of it as GitHub writes it."""
    file, _, anchor = (target if target[0] != "#" else page.name + target).partition("#")
    titles = re.findall(r"^#+ (.*)", (page.parent / file).read_text("utf-8"), re.MULTILINE) if anchor else []
    anchors = ["", *(re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles)]
    return (page.parent / file).exists() and anchor in anchors


def test_sentences_and_broken_links_are_found():
    assert [*map(len, sentences("# A\n\nOf `a b`\nit (Lin et al. 2018). [F i](x.md)\n\n    no.\n| a |\n"))] == [7, 2]
    assert [leads_somewhere(ROOT / "README.md", to) for to in ("no.md", "#no", "docs", "#install")] == [0, 0, 1, 1]


def test_pages_have_short_sentences_and_no_broken_link():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        links = [target for _, target in LINK.findall(text) if "://" not in target]
        assert [target for target in links if not leads_somewhere(page, target)] == [], page.name
        listed = {file.name for file in page.parent.glob("*.md")} if page.name == "README.md" else set()
        assert listed <= {page.name, *links} and (not listed or text.count("\n") <= 130), page.name
        long = [" ".join(words) for words in sentences(text) if len(words) > 40]
        assert long == [] and median(map(len, sentences(text))) <= 25, page.name
