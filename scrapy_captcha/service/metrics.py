"""What the service counts, for Prometheus; each app has a registry of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from collections.abc import Callable

#: Upper bounds in seconds: half a millisecond is a reading, a second the usual deadline.
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
#: Upper bounds in images.
IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one app.

    >>> metrics = Metrics()
    >>> metrics.requests.labels("/captcha", "200").inc()
    >>> text, content_type = metrics.render()
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "captcha_requests",
            "Requests that were answered.",
            ("route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "captcha_request_seconds",
            "From a request's head to its answer.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.images = Counter(
            "captcha_images",
            "Images by what came of them: read, unreadable or failed.",
            ("result",),
            registry=self.registry,
        )
        self.batch_images = Histogram(
            "captcha_batch_images",
            "Images that a reader got at a time.",
            buckets=IMAGES,
            registry=self.registry,
        )
        self.refused = Counter(
            "captcha_refused",
            "Images that were not read, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.reader_restarts = Counter(
            "captcha_reader_restarts",
            "Reader processes that ended and were replaced.",
            registry=self.registry,
        )
        self.waiting = Gauge(
            "captcha_waiting_images",
            "Images that wait for a reader.",
            registry=self.registry,
        )
        self.being_read = Gauge(
            "captcha_being_read_images",
            "Images that readers have now.",
            registry=self.registry,
        )
        self.readers = Gauge(
            "captcha_readers",
            "Reader processes that are up.",
            registry=self.registry,
        )
        self._model = Gauge(
            "captcha_model_info",
            "The models that read; 1 for the hash that reads now.",
            ("name", "hash"),
            registry=self.registry,
        )
        self._hashes: dict[str, str] = {}
        ProcessCollector(registry=self.registry)

    def watch(
        self,
        waiting: Callable[[], float],
        being_read: Callable[[], float],
        readers: Callable[[], float],
    ) -> None:
        """Ask for the gauges' values whenever they are wanted, so that keeping them costs nothing.

        :param waiting: images that wait
        :param being_read: images that readers have
        :param readers: reader processes that are up
        """
        self.waiting.set_function(waiting)
        self.being_read.set_function(being_read)
        self.readers.set_function(readers)

    def show_model(self, name: str, hash_: str) -> None:
        """Name the model that reads under a name from now on."""
        old = self._hashes.get(name)
        if old is not None and old != hash_:
            self._model.remove(name, old)
        self._hashes[name] = hash_
        self._model.labels(name, hash_).set(1)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The text for Prometheus, and its content type.

        :param accept: the request's header of that name; it may ask for OpenMetrics
        """
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
