"""A page with an address field and a button that sends one message of each kind."""

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from mailqueue_backend.mail.smtp import QueuedEmailBackend

from .messages import one_of_each_kind


class AddressForm(forms.Form):
    """The recipient of the messages."""

    to = forms.EmailField(label="E-mail address")


def postbox(request: HttpRequest) -> HttpResponse:
    """Show the number of queued messages; on POST, queue one of each kind."""
    form = AddressForm(request.POST or None)
    if form.is_valid():
        for message in one_of_each_kind(form.cleaned_data["to"]):
            message.send()
        return redirect("postbox")
    return render(request, "postbox.html", {"form": form, "waiting": len(QueuedEmailBackend().que)})
