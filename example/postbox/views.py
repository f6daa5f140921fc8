"""A page with an address and a button, which sends one message of each kind."""

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from mailqueue_backend.mail.smtp import QueuedEmailBackend

from .messages import one_of_each_kind


class AddressForm(forms.Form):
    """Who shall get the messages."""

    to = forms.EmailField(label="E-mail address")


def postbox(request: HttpRequest) -> HttpResponse:
    """Show what waits; queue the messages when the form was sent."""
    form = AddressForm(request.POST or None)
    if form.is_valid():
        for message in one_of_each_kind(form.cleaned_data["to"]):
            message.send()
        return redirect("postbox")
    return render(request, "postbox.html", {"form": form, "waiting": len(QueuedEmailBackend().que)})
