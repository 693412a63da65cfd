"""Checks the links of a book that mdBook has built: book_links.py BOOK.

Each link without a scheme must lead to a file of the book and, with an anchor, to an element with that id. Exits with 1 and
names those that do not.
"""

import html.parser
import pathlib
import sys
import urllib.parse


class Page(html.parser.HTMLParser):
    """The ids of a page, and what it links to."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.links.add(value)


def main(book):
    pages = {path: Page(path.read_text()) for path in sorted(book.rglob("*.html"))}
    seen, broken = 0, []
    for path, page in pages.items():
        # Its links are those of the other pages, from another place.
        if path.name in ("print.html", "404.html"):
            continue
        for link in sorted(page.links):
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            seen += 1
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path.resolve()
            there = pages.get(target)
            if not (target.is_relative_to(book) and target.exists()):
                broken.append(f"{path.relative_to(book)}: {link}: no such file")
            elif parts.fragment and there and urllib.parse.unquote(parts.fragment) not in there.ids:
                broken.append(f"{path.relative_to(book)}: {link}: no such section")
    if seen < 1000:
        broken.append(f"only {seen} links were found in {len(pages)} pages")
    print(*broken, sep="\n", file=sys.stderr, end="\n" if broken else "")
    print(f"book: {seen} links in {len(pages)} pages")
    return 1 if broken else 0


sys.exit(main(pathlib.Path(sys.argv[1]).resolve()))
