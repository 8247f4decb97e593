"""The pages below ``/ui/``: plain forms that work without JavaScript, and fragments for htmx.

Each module puts its pages onto the one blueprint when it is imported.
"""

from rockiln.api.views.web.gallery import gallery_page
from rockiln.api.views.web.generate import home
from rockiln.api.views.web.jobs import job_page
from rockiln.api.views.web.models import models_page
from rockiln.api.views.web.pages import blueprint
from rockiln.api.views.web.queue import queue_page
from rockiln.api.views.web.sign_in import sign_in_page
from rockiln.api.views.web.system import system_page

__all__ = [
    "blueprint", "home", "job_page", "queue_page", "gallery_page", "models_page", "system_page",
    "sign_in_page",
]  # fmt: skip
