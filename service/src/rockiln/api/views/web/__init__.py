"""The pages below ``/ui/``: plain forms that work without JavaScript, and fragments for htmx."""

from rockiln.api.views.web import gallery, generate, jobs, models, queue, system
from rockiln.api.views.web.pages import blueprint

__all__ = ["blueprint", "gallery", "generate", "jobs", "models", "queue", "system"]
