"""The options of ``[target-group:NAME]`` for targets that come, are far away or too few."""

from __future__ import annotations

from lbproxy.controlplane.config.options.option import Option
from lbproxy.controlplane.config.values import (
    PERCENTAGE,
    Form,
    as_written,
    duration_from,
    integer_from,
    value_of,
)
from lbproxy.model.target_group import CrossZone


def _slow_start(text: str) -> float:
    seconds = duration_from("0s", "900s").parse(text)
    if 0 < seconds < 30:
        raise ValueError("too short; write 0s for none, or 30s to 900s")
    return seconds


def _percentage_or_off(text: str) -> int:
    return 0 if text == "off" else PERCENTAGE.parse(text)


_PERCENTAGE_OR_OFF = Form("number, 1 to 100, or off", _percentage_or_off)


OPTIONS: tuple[Option, ...] = (
    Option(
        name="slow-start",
        form=Form("0s, or duration from 30s to 900s", _slow_start),
        default="0s",
        effect="A target that becomes healthy beside others that are in full service gets its share little by little"
        " over this time. Not with `least_outstanding_requests`, `weighted_random` or `first`.",
        example="60s",
    ),
    Option(
        name="cross-zone",
        form=value_of(CrossZone),
        default="on",
        effect="`on`: targets of all zones are alike. `spill`: those of other zones than `zone` in `[lbproxy]` take"
        " only what healthy targets in it cannot. `off`: they take nothing. A target without a zone is in all zones.",
        example="spill",
    ),
    Option(
        name="unhealthy-state-routing-minimum-count",
        form=integer_from(1, 1000),
        default="1",
        effect="With fewer healthy targets than this, all of them get traffic, unhealthy ones too"
        " (`target_group_health.unhealthy_state_routing.minimum_healthy_targets.count`).",
        example="3",
    ),
    Option(
        name="unhealthy-state-routing-minimum-percentage",
        form=_PERCENTAGE_OR_OFF,
        default="off",
        effect="The same as a share of the targets.",
        example="50",
    ),
    Option(
        name="backup",
        form=as_written("name"),
        default_text="none",
        effect="A target group that takes this one's traffic while too few of its targets are healthy.",
        example="other-site",
    ),
    Option(
        name="backup-percentage",
        form=PERCENTAGE,
        default="1",
        effect="The backup takes over while less than this share of the targets is healthy; 1 is when none is.",
        example="50",
    ),
)
