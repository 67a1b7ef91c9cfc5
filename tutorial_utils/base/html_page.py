"""The frame of the HTML pages that the package writes: light and dark, and nothing loaded from anywhere."""

from html import escape

_STYLE = """\
:root { color-scheme: light dark; --text: #1c2024; --quiet: #596069; --page: #f6f7f9; --card: #fff; --line: #d9dde3;
  --link: #0b57c2; --live: #17693a; --recording: #8a4b00; }
@media (prefers-color-scheme: dark) { :root { --text: #e7eaee; --quiet: #a3abb5; --page: #14171b; --card: #1d2126;
  --line: #363c44; --link: #86b7ff; --live: #74d69c; --recording: #f2b872; } }
body { margin: 0; background: var(--page); color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 52rem; margin: 0 auto; padding: 2.5rem 1.25rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .75rem; }
a { color: var(--link); }
.quiet { color: var(--quiet); font-size: .9rem; }
"""


def html_page(title: str, body: str, style: str = "") -> str:
    """Return a whole page.

    Args:
        title: As text; it is the page's heading, too.
        body: HTML of what comes below the heading.
        style: Further CSS. The colours are variables: ``--text``, ``--quiet``, ``--page``, ``--card``, ``--line``,
            ``--link``, ``--live`` and ``--recording``.
    """
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_STYLE}{style}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}
</main>
</body>
</html>
"""
