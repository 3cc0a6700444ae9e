"""The options of ``[target-group:NAME]`` for targets that fail although their health checks pass."""

from __future__ import annotations

from lbproxy.controlplane.config.options.option import HTTP, Option
from lbproxy.controlplane.config.values import BOOLEAN, PERCENTAGE, duration_from, integer_from

OPTIONS: tuple[Option, ...] = (
    Option(
        name="outlier-detection",
        form=BOOLEAN,
        default="off",
        effect="Take a target out for a while when its requests fail or take long, whatever its health checks say. See"
        " [balancing.md](balancing.md#outliers).",
        example="on",
    ),
    Option(
        name="outlier-consecutive-failures",
        form=integer_from(0, 1000),
        protocols=HTTP,
        default="5",
        effect="So many requests in a row that fail or are answered with 500 or more, as one worker sees them; 0 for"
        " never.",
        example="3",
    ),
    Option(
        name="outlier-latency-factor",
        form=integer_from(0, 1000),
        protocols=HTTP,
        default="5",
        effect="So many times the response time of the other targets (their median) is too slow; 0 for never.",
        example="10",
    ),
    Option(
        name="outlier-interval",
        form=duration_from("1s", "5m"),
        default="10s",
        effect="How often the targets are compared.",
        example="5s",
    ),
    Option(
        name="outlier-base-ejection-time",
        form=duration_from("1s", "1h"),
        default="30s",
        effect="How long a target is out the first time; twice as long each time after.",
        example="10s",
    ),
    Option(
        name="outlier-max-ejection-time",
        form=duration_from("1s", "1d"),
        default="5m",
        effect="The longest that it is out at a time.",
        example="10m",
    ),
    Option(
        name="outlier-max-ejected-percentage",
        form=PERCENTAGE,
        default="33",
        effect="Which part of the healthy targets may be out at a time; one always may, the last one never.",
        example="50",
    ),
)
