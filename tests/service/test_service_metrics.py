"""What Prometheus is told."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from scrapy_captcha.service.metrics import Metrics


def samples(text: bytes) -> dict[str, float]:
    """Every sample, named as in the text."""
    return {
        "".join(
            [sample.name, *(f"{{{key}={value}}}" for key, value in sorted(sample.labels.items()))]
        ): (sample.value)
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_the_text_says_what_was_counted() -> None:
    metrics = Metrics()
    metrics.watch(lambda: 3, lambda: 16, lambda: 2)
    metrics.requests.labels("/captcha", "200").inc()
    metrics.seconds.observe(0.003)
    metrics.batch_images.observe(16)
    metrics.refused.labels("full").inc(2)
    metrics.images.labels("read").inc(16)
    metrics.reader_restarts.inc()

    text, content_type = metrics.render()
    found = samples(text)

    assert content_type.startswith("text/plain")
    assert found["captcha_requests_total{route=/captcha}{status=200}"] == 1
    assert found["captcha_request_seconds_bucket{le=0.002}"] == 0
    assert found["captcha_request_seconds_bucket{le=0.005}"] == 1
    assert found["captcha_batch_images_sum"] == 16
    assert found["captcha_refused_total{reason=full}"] == 2
    assert found["captcha_images_total{result=read}"] == 16
    assert found["captcha_reader_restarts_total"] == 1
    assert found["captcha_waiting_images"] == 3
    assert found["captcha_being_read_images"] == 16
    assert found["captcha_readers"] == 2


def test_gauges_are_asked_for_when_they_are_wanted() -> None:
    metrics, waiting = Metrics(), [1, 5]
    metrics.watch(waiting.pop, lambda: 0, lambda: 1)
    assert samples(metrics.render()[0])["captcha_waiting_images"] == 5
    assert samples(metrics.render()[0])["captcha_waiting_images"] == 1


def test_one_hash_a_model_is_shown() -> None:
    metrics = Metrics()
    metrics.show_model("alnum4", "old")
    metrics.show_model("alnum8", "other")
    metrics.show_model("alnum4", "new")
    metrics.show_model("alnum4", "new")
    shown = {name: n for name, n in samples(metrics.render()[0]).items() if "model_info" in name}
    assert shown == {
        "captcha_model_info{hash=new}{name=alnum4}": 1,
        "captcha_model_info{hash=other}{name=alnum8}": 1,
    }


def test_two_apps_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()
    one.reader_restarts.inc()
    assert samples(one.render()[0])["captcha_reader_restarts_total"] == 1
    assert samples(other.render()[0])["captcha_reader_restarts_total"] == 0


def test_open_metrics_is_there_for_those_who_ask() -> None:
    text, content_type = Metrics().render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
