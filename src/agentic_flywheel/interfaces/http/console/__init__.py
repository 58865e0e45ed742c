"""The console in the browser, at `/`: pages for people over the same facade as every other interface.

Invariant: no page has logic of its own. A screen asks the flywheel of its caller and shows what comes back, as HTML or
as its JSON twin, which is the very same value. Whatever people or flows wrote is text: templates escape it, answers go
through `markdown`, and the policy of every page (`pages.POLICY`) forbids all scripts and styles but our own files.
Everything works as links and forms alone; scripts only add to it. The URL is the state.

A screen is a module of `screens`, with a template, and words in both languages:

1. `screens/greetings.py`, named in `screens.ALL`:

        class GreetingsView(msgspec.Struct, frozen=True, kw_only=True):      # the JSON twin is this, as it is
            flow: str
            greetings: tuple[str, ...]

        async def show(visit: Visit) -> Page:
            flow = visit.text("flow")                                         # of the URL
            found = await visit.flywheel.greetings(flow, user=visit.user)     # whoever calls, for themselves
            return Page("greetings.html", GreetingsView(flow=flow, greetings=found))

        async def greet(visit: Visit, form: Form) -> Page | Went:
            await visit.flywheel.greet(form.text("name"))
            return Went(visit.link("/greetings", flow=form.text("flow")), said="greetings.greeted")

        SCREENS = (Screen("/greetings", show, needs=Scope.READ, name="greetings", place=60),)
        ACTIONS = (Action("/greetings/greet", greet, needs=Scope.ADMIN),)

   `place` is where the screen stands in the navigation, None for none; it is shown to whoever may use it. A screen is
   served at its path, and its twin at `PATH.json` (`/index.json` for `/`), or at the path itself where JSON alone is
   accepted. What `needs` says is checked before; sessions go through `sight.admit_session`. What is raised becomes a
   page or a problem document, so nothing is caught.

2. `templates/greetings.html`, which fills the frame; `_` says a message, `parts.html` has what pages share:

        {% extends "frame.html" %}
        {% block title %}{{ _("greetings.title") }}{% endblock %}
        {% block main %}
          <h1>{{ _("greetings.title") }}</h1>
          <form method="post" action="/greetings/greet">
            {{ parts.token() }}
            <label>{{ _("greetings.name") }} <input name="name" required></label>
            <button>{{ _("greetings.greet") }}</button>
          </form>
          {{ _("greetings.count", n=view.greetings | length) }}
        {% endblock %}

   Every form that posts has `parts.token()`: it is refused without. Filters: `percent`, `number`, `duration` (seconds)
   and, in few letters, `span`, `milliseconds`, `size` (bytes), `moment`, `past`, `markdown`, `marked` (text with
   offsets), `differing` (two texts, word by word).
   `parts`: `badge`, `ago`, `pager`, `empty`, `notes`, `chart`, `tile`. What should be fetched again when something was
   asked stands in an element with an id and `{{ parts.live() }}`.

3. `words/greetings.toml`: each message as `[English, French]`; with a count `n`, each as `[one, other]`:

        [greetings]
        title = ["Greetings", "Salutations"]
        count = [["{n} greeting", "{n} greetings"], ["{n} salutation", "{n} salutations"]]

   The name of a screen in the navigation is `nav.NAME` (`words/frame.toml`).

4. Rows in `tests/http_routes.py` for the path, its twin and its actions; a test in the browser of what the screen is
   for (`tests/console_pages.py` opens every screen, wide and narrow, and looks for errors and barriers).

Styles are in `static/console.css`; `.card`, `.tiles`, `.table-wrap > table`, `.row`, `.muted`, `.badge`, `.empty` and
plain elements look right by themselves. Tables become lists on a telephone where their cells say `data-label`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentic_flywheel.interfaces.http.console.site import Site
from agentic_flywheel.interfaces.http.rooms import Room

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.service import Service


def room(service: Service) -> Room:
    """The console."""
    site = Site(service)
    return Room("console", site.routes, "/: the console, for people", errors=site.failed)
