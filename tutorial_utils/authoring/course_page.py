"""The HTML of the executed course: its front page, and the template of the lessons' pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, StrictUndefined

from tutorial_utils.base.html_page import html_page
from tutorial_utils.measure.recordings import Origin

TITLE = "From a PaddlePaddle model to a fast TensorRT engine"

# nbconvert's page, with four changes: a way back to the front page, a fixed-width font for source code that a cell
# shows, the descriptions of pictures, which nbconvert 7 drops here, and no script from the network that holds up a page
# where the network is closed. MathJax may come late; require.js serves widgets, of which the course has none.
LESSON_TEMPLATE = """\
{%- extends 'lab/index.html.j2' -%}
{%- from 'mathjax.html.j2' import mathjax -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}
{{ mathjax(resources.mathjax_url) | replace('<script src', '<script defer src') }}
{%- endblock -%}
{%- block data_png scoped -%}
{%- set alt = output | get_metadata('alt', 'image/png') or '' -%}
{{ super() | replace('<img ', '<img alt="' ~ (alt | escape_html) ~ '" ') if alt else super() }}
{%- endblock -%}
{%- block body_header -%}
{{ super() }}
<style>.jp-OutputArea-output .highlight pre { font-family: var(--jp-code-font-family); }</style>
<nav style="font: 14px system-ui, sans-serif; padding: 0 0 14px 72px">
<a style="color: #0b57c2; text-decoration: underline" href="index.html">All lessons</a>
</nav>
{%- endblock -%}
"""

_STYLE = """\
h2 { font-size: 1.15rem; line-height: 1.35; margin: 0; flex: 1; }
p { margin: .25rem 0; }
ol, ul { list-style: none; margin: 0; padding: 0; }
ol { margin-top: 2rem; }
ol > li { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem 1.25rem;
  margin-bottom: 1rem; }
.head { display: flex; gap: 1rem; align-items: baseline; }
.time { color: var(--quiet); white-space: nowrap; font-variant-numeric: tabular-nums; }
ul li { display: grid; grid-template-columns: 6rem 1fr; gap: 0 .75rem; margin-top: .6rem; align-items: baseline; }
.badge { border: 1px solid; border-radius: 1rem; font-size: .8rem; text-align: center; }
.live { color: var(--live); }
.recording { color: var(--recording); }
ul .quiet { grid-column: 2; }
@media (max-width: 32rem) {
  ul li { grid-template-columns: 1fr; }
  ul .quiet { grid-column: 1; }
  .badge { width: 6rem; }
}
"""

# Jinja comes with nbconvert, which makes the lessons' pages.
_BODY = Environment(autoescape=True, trim_blocks=True, undefined=StrictUndefined).from_string("""\
<p>{{ total }}</p>
<p class="quiet">Run on {{ date }}: {{ machine }}.</p>
<ol role="list">
{% for lesson in lessons %}
<li>
<div class="head"><h2><a href="{{ lesson.page }}">{{ lesson.title }}</a></h2>
<span class="time">{{ duration(lesson.seconds) }}</span></div>
{% if lesson.origins %}
<ul role="list">
{% for result in lesson.origins %}
<li><span class="badge {{ result.origin }}">{{ result.origin }}</span><span>{{ result.what }}</span>
{% if result.origin == "recording" %}
<span class="quiet">{{ result.machine[:1].upper() }}{{ result.machine[1:] }}. Why not live: {{ result.reason }}</span>
{% endif %}
</li>
{% endfor %}
</ul>
{% endif %}
</li>
{% endfor %}
</ol>""")


@dataclass(frozen=True)
class Lesson:
    """One executed lesson.

    Attributes:
        title: Its first heading.
        page: File name of its HTML page, which lies beside the front page.
        seconds: How long it ran.
        origins: What ran live in it and what is a recording, in order.
    """

    title: str
    page: str
    seconds: float
    origins: Sequence[Origin]


def front_page(lessons: Sequence[Lesson], machine: Mapping[str, Any], date: str) -> str:
    """Return the HTML of the front page. It needs no other file and no network.

    Args:
        lessons: The executed lessons, in order.
        machine: The stamp of this machine, from `Capabilities.machine`.
        date: When the lessons ran.
    """
    origins = [origin for lesson in lessons for origin in lesson.origins]
    recordings = sum(origin.origin == "recording" for origin in origins)
    total = (
        f"{count(len(lessons), 'lesson')}, {duration(sum(lesson.seconds for lesson in lessons))} on this machine: "
        f"{count(len(origins) - recordings, 'result')} live, {count(recordings, 'recording')}."
    )
    body = _BODY.render(lessons=lessons, total=total, date=date, machine=machine_line(machine), duration=duration)
    return html_page(TITLE, body, _STYLE)


def machine_line(machine: Mapping[str, Any]) -> str:
    """Return one line about a machine: its hardware, system and libraries."""
    libraries = (f"{name} {version}" for name, version in machine["libraries"].items())
    gpu = machine["gpu"] or "no NVIDIA GPU"
    return ", ".join(
        [machine["cpu"], f"{machine['cores']} cores", gpu, machine["os"], f"Python {machine['python']}", *libraries]
    )


def duration(seconds: float) -> str:
    """Return seconds as a person says them: "42 s" or "3.5 min"."""
    return f"{seconds:.0f} s" if seconds < 59.5 else f"{seconds / 60:.1f} min"


def count(number: int, noun: str) -> str:
    """Return a number with its noun in the right form: "1 lesson" or "3 lessons"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
