"""An authorization server of django-oauth-toolkit: PKCE required, refresh tokens rotated.

Its one argument is JSON: `id`, `secret` and `redirect_uris` of the application. It prints `port N` when it
listens. One person is always signed in, so that `/o/authorize/` shows its consent page at once. `GET /api/me` wants
an access token with the scope `read`; `POST /-/expire` lets every access token expire.
"""

import json
import sys
from datetime import timedelta
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
from django.conf import settings

import ends_with_starter

OPTIONS = json.loads(sys.argv[1])

settings.configure(
    SECRET_KEY="a key for tests",
    DEBUG=False,
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    # Shared between threads, and gone with the process.
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": "file:peer?mode=memory&cache=shared",
            "OPTIONS": {"timeout": 20},
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "oauth2_provider",
    ],
    MIDDLEWARE=[
        # Says how long answers are.
        "django.middleware.common.CommonMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        __name__ + ".always_signed_in",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    OAUTH2_PROVIDER={
        "SCOPES": {"read": "Read", "write": "Write"},
        "PKCE_REQUIRED": True,
        "ROTATE_REFRESH_TOKEN": True,
        "REFRESH_TOKEN_REUSE_PROTECTION": True,
        "ACCESS_TOKEN_EXPIRE_SECONDS": 3600,
        "ALLOWED_REDIRECT_URI_SCHEMES": ["http", "https"],
        "REQUEST_APPROVAL_PROMPT": "force",
    },
    LOGGING_CONFIG=None,
)
django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import include, path  # noqa: E402
from django.utils import timezone  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from oauth2_provider.models import AccessToken, Application  # noqa: E402
from oauth2_provider.decorators import protected_resource  # noqa: E402


def always_signed_in(get_response):
    def middleware(request):
        if request.path.startswith("/o/authorize"):
            request.user = get_user_model().objects.get(username="ada")
        return get_response(request)

    return middleware


@protected_resource(scopes=["read"])
def me(request):
    user = request.resource_owner
    return JsonResponse({"id": user.pk, "username": user.username, "email": user.email})


@csrf_exempt
def expire(_request):
    past = timezone.now() - timedelta(seconds=1)
    return JsonResponse({"expired": AccessToken.objects.update(expires=past)})


def tokens(_request):
    return JsonResponse({"live": AccessToken.objects.count()})


urlpatterns = [
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("api/me", me),
    path("-/expire", expire),
    path("-/tokens", tokens),
]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_arguments):
        pass


def main():
    ends_with_starter.watch()
    # The database lives as long as one connection to it is open: this thread's.
    call_command("migrate", verbosity=0)
    ada = get_user_model().objects.create_user("ada", "ada@example.com")
    Application.objects.create(
        name="Trunkline",
        user=ada,
        client_id=OPTIONS["id"],
        client_secret=OPTIONS["secret"],
        redirect_uris=" ".join(OPTIONS["redirect_uris"]),
        client_type=Application.CLIENT_CONFIDENTIAL,
        authorization_grant_type=Application.GRANT_AUTHORIZATION_CODE,
    )
    server = make_server("127.0.0.1", 0, get_wsgi_application(), Server, Quiet)
    print("port", server.server_port, flush=True)
    server.serve_forever()


main()
