"""A Django project in one file, as WSGI (`application`) and ASGI (`asgi_application`)."""

import django
from django.conf import settings

settings.configure(
    DEBUG=False,
    SECRET_KEY="not secret in a test",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=50_000_000,
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse  # noqa: E402
from django.urls import path  # noqa: E402


def index(request):
    return HttpResponse("Hello, world!")


def info(request, name):
    return JsonResponse({"name": name, "host": request.get_host(), "method": request.method, "path": request.path})


def raw(request):
    return JsonResponse({"size": len(request.body), "length": request.META.get("CONTENT_LENGTH")})


def form(request):
    upload = request.FILES.get("file")
    return JsonResponse({"fields": request.POST.dict(), "size": upload.size if upload else 0})


def stream(request):
    return StreamingHttpResponse("%d\n" % number for number in range(1000))


def file(request):
    return FileResponse(open(django.__file__, "rb"))


urlpatterns = [
    path("", index),
    path("info/<str:name>", info),
    path("raw", raw),
    path("form", form),
    path("stream", stream),
    path("file", file),
]
application = get_wsgi_application()
asgi_application = get_asgi_application()
