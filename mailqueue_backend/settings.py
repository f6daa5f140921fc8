"""All settings that this package reads: name, types, default. Each one is read when it is used.

``conf.MAIL_QUEUE_NAME`` is the site's value, or the default. It raises ConfigurationError if the value has a wrong
type, or is out of range. The constants of 0.1.2 (``settings.QUEUE_NAME``, …) return the current values, too.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from os import PathLike
from typing import Any, Generic, TypeVar, overload

from django.conf import settings

from .errors import ConfigurationError

T = TypeVar("T")


class Setting(Generic[T]):
    """One attribute of django.conf.settings, with its types, range and default, read at each access.

    A number must be at least 0; with ``positive``, greater than 0; with ``finite``, not infinite.
    """

    def __init__(
        self, default: T, *kinds: type, choices: tuple[T, ...] = (), positive: bool = False, finite: bool = True
    ) -> None:
        self.default = default
        self.kinds = kinds or (type(default),)
        self.choices = choices
        self.positive = positive
        self.finite = finite

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Setting[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object, owner: type) -> Setting[T] | T:
        if instance is None:
            return self
        value = self.read()
        self.check_type(value)
        self.check_range(value)
        return value

    def read(self) -> T:
        """Return the site's value, or the default, without checking it."""
        value: T = getattr(settings, self.name, self.default)
        return value

    def check_type(self, value: object) -> None:
        """Raise ConfigurationError if the value has a wrong type, or is not one of the choices."""
        # True and False are instances of int.
        if not isinstance(value, self.kinds) or (isinstance(value, bool) and self._is_number):
            kinds = " or ".join(kind.__name__.replace("NoneType", "None") for kind in self.kinds)
            raise ConfigurationError(
                f"{self.name} in your settings must be {kinds}, not {type(value).__name__}.", self._hint(value)
            )
        if self.choices and value not in self.choices:
            choices = " or ".join(repr(choice) for choice in self.choices)
            raise ConfigurationError(f"{self.name} in your settings must be {choices}, not {value!r}.")

    def check_range(self, value: object) -> None:
        """Raise ConfigurationError if the value is a number outside the range."""
        if not self._is_number or not isinstance(value, (int, float)) or isinstance(value, bool):
            return
        if not (value >= 0 and (value or not self.positive) and (value < math.inf or not self.finite)):
            bound = "greater than 0" if self.positive else "0 or greater"
            kind = "finite number" if self.finite else "number"
            raise ConfigurationError(
                f"{self.name} in your settings must be a {kind}, {bound}, not {value}.", self._hint(value)
            )

    @property
    def _is_number(self) -> bool:
        return not {int, float}.isdisjoint(self.kinds) and bool not in self.kinds

    def _hint(self, value: object) -> str:
        """Return what to write; a string is probably from the environment."""
        variable = f'os.environ["{self.name}"]'
        if isinstance(value, str) and self._is_number:
            kind = "float" if float in self.kinds and not value.isdecimal() else "int"
            return f"Write a number; from the environment, write {self.name} = {kind}({variable})."
        if isinstance(value, str) and bool in self.kinds:
            return f'Write True or False; from the environment, write {self.name} = {variable} == "True".'
        return f"The default is {self.default!r}."


class QueueFrontSetting(Setting[T]):
    """A setting that queue-front also reads from the environment, where a number is text, and may be empty."""

    def read(self) -> T:
        """Return the value from the settings or the environment, or the default, as a number if it can be one."""
        value: Any = super().read() if hasattr(settings, self.name) else os.environ.get(self.name, self.default)
        if isinstance(value, str) and self._is_number:
            with suppress(ValueError):
                return self.kinds[0](value) if value else self.default
        return value  # type: ignore[no-any-return]


class DeprecatedSetting(Setting[T]):
    """A deprecated setting of Django, read without the deprecation warning: this package reads it, not the site."""

    def read(self) -> T:
        """Return the site's value, or the default."""
        # Django >= 6.1: LazySettings.__getattr__() would warn.
        value: T = getattr(settings._wrapped, self.name, self.default)  # type: ignore[misc]
        return value


class Settings:
    """The MAIL_QUEUE_* settings, and the settings of Django and queue-front that this package uses."""

    #: Name of the queue.
    MAIL_QUEUE_NAME = Setting("MAIL_QUEUE")
    #: Age in seconds after which a message that has just failed is discarded.
    MAIL_QUEUE_EXPIRE = Setting[float](86400, int, float, finite=False)
    #: Seconds for which a drain reserves a message; twice the time that its delivery may take.
    MAIL_QUEUE_LEASE = Setting[float](600, int, float, positive=True)
    #: Minimum number of seconds until a failed message is tried again; grows with its age. 0: each drain tries it.
    MAIL_QUEUE_RETRY_DELAY = Setting[float](0, int, float)
    #: Whether a message that the server refuses permanently (5xx) is tried again until it expires.
    MAIL_QUEUE_RETRY_REJECTED = Setting(True)
    #: Maximum number of connections of a drain.
    MAIL_QUEUE_WORKERS = Setting(8, positive=True)
    #: Maximum number of messages per second that a drain sends; 0: no limit.
    MAIL_QUEUE_RATE = Setting[float](0, int, float)
    #: Dotted path of the backend with which mail.relay delivers, if MAILERS is not used.
    MAIL_QUEUE_DELIVERY_BACKEND = Setting[str | None](None, str, type(None))
    #: Database alias of the database queue.
    MAIL_QUEUE_DATABASE = Setting("default")
    #: How to treat an unsigned payload: "restricted" reads it as inert data, "quarantine" moves it to the dead queue.
    MAIL_QUEUE_UNSIGNED = Setting("restricted", choices=("restricted", "quarantine"))
    #: Path of the discard log.
    MAIL_QUEUE_LOG_FILENAME = Setting[str | PathLike[str]]("smtp.mail_queue.mail_queue_fail.log", str, PathLike)
    #: Size in bytes at which the discard log is rotated; 0: never.
    MAIL_QUEUE_LOG_FILE_MAXBYTES = Setting(5242880)
    #: Number of rotated discard logs that are kept.
    MAIL_QUEUE_LOG_FILE_BACKUP = Setting(5)
    #: Days for which the history keeps a recipient after the last change.
    MAIL_QUEUE_HISTORY_DAYS = Setting[float](30, int, float, positive=True)
    #: Whether the history stores subjects.
    MAIL_QUEUE_HISTORY_SUBJECTS = Setting(True)
    #: From queue-front: one of its modules, or a dotted path. None: the database queue.
    QUEUE_BACKEND = Setting[str | None](None, str, type(None))
    #: URL of the Redis queue: redis://, rediss:// or unix://, with password and database.
    MAIL_QUEUE_REDIS_URL = Setting[str | None](None, str, type(None))
    #: From queue-front's redisd: host:port, database number, timeout in seconds.
    QUEUE_REDIS_CONNECTION = QueueFrontSetting[str | None](None, str, type(None))
    QUEUE_REDIS_DB = QueueFrontSetting[int | None](None, int, type(None))
    QUEUE_REDIS_TIMEOUT = QueueFrontSetting[float | None](None, float, int, type(None))
    #: From Django: the key that signs payloads.
    SECRET_KEY = Setting[str | bytes]("", str, bytes)
    #: From Django: old keys, whose signatures are still accepted.
    SECRET_KEY_FALLBACKS = Setting[list[str | bytes] | tuple[str | bytes, ...]]([], list, tuple)
    #: From Django 6.1: the mailers. None: EMAIL_BACKEND is used.
    MAILERS = Setting[dict[str, Any] | None](None, dict, type(None))
    #: From Django: the backend, if MAILERS is not used.
    EMAIL_BACKEND = DeprecatedSetting("django.core.mail.backends.smtp.EmailBackend")
    #: From Django: whether this is not production.
    DEBUG = Setting[object](False, object)
    #: From Django: whether the Date of a message is in local time.
    EMAIL_USE_LOCALTIME = Setting[bool](False, bool, int)


conf = Settings()


def all_settings() -> list[Setting[Any]]:
    """Return all settings of this package, in the order of their definition."""
    return [setting for setting in vars(Settings).values() if isinstance(setting, Setting)]


def names_in_settings() -> list[str]:
    """Return the names of all settings that the site or Django defines."""
    return [name for name in dir(settings) if name.isupper()]


#: Names under which 0.1.2 published its settings.
_OLD_NAMES = {
    "QUEUE_NAME": "MAIL_QUEUE_NAME",
    "QUEUE_EXPIRE": "MAIL_QUEUE_EXPIRE",
    "LOG_FILENAME": "MAIL_QUEUE_LOG_FILENAME",
    "LOG_FILE_MAXBYTES": "MAIL_QUEUE_LOG_FILE_MAXBYTES",
    "LOG_FILE_BACKUP": "MAIL_QUEUE_LOG_FILE_BACKUP",
}


def __getattr__(name: str) -> Any:
    if name in _OLD_NAMES:
        return getattr(conf, _OLD_NAMES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
