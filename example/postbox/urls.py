"""The site's one page."""

from django.urls import path

from .views import postbox

urlpatterns = [path("", postbox, name="postbox")]
