"""A listener's rules, compiled so that a thousand cost what ten do.

Each rule is filed once, under the condition that fewest other rules share:

* an exact host or path in a dictionary;
* a host with a fixed end (``*.example.com``) or a path with a fixed beginning (``/api/*``) in a
  `PrefixIndex`, the host backwards;
* a rule with neither in a list that is looked through for every request.

A request looks into each of them and so meets a few short lists of candidates, each in order
of priority.  From each list the first candidate counts whose remaining checks hold, unless a better one is
known already; what the look-up has proved is not checked again.  A candidate is the rule's `Match` itself: among
thousands of rules, each object more on the way to it is one that the processor has not at hand.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random

import attrs

from lbproxy.dataplane.router.conditions import Check, compile_condition
from lbproxy.dataplane.router.groups import GroupChoice
from lbproxy.dataplane.router.patterns import split_wildcard
from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.dataplane.router.transform import CompiledTransform, compile_transform
from lbproxy.model.listener import Listener
from lbproxy.model.retry import RetryChange
from lbproxy.model.rule import (
    DEFAULT_QUEUE_PRIORITY,
    Action,
    Forward,
    HostCondition,
    PathCondition,
    Pattern,
    Redirect,
    Rule,
)
from lbproxy.model.transform import Transform
from lbproxy.native.prefixes import Prefixes

DEFAULT_RULE_NAME = "default"


class Match:
    """What a request gets: a rule, or the listener's default, with its action.

    Made when the table is, and the same object for every request; do not change it.
    """

    __slots__ = (
        "action",
        "action_text",
        "checks",
        "forward",
        "priority",
        "queue_priority",
        "retry",
        "rule_name",
        "transform",
    )

    rule_name: str
    """``default`` for the default action."""
    priority: int
    """0 for the default action."""
    queue_priority: int
    """Of requests that have to wait for a target."""
    action: Action
    action_text: str
    """``forward``, ``redirect`` or ``fixed-response``."""
    forward: GroupChoice | None
    """For a forward action: which target group."""
    transform: CompiledTransform | None
    """What the listener and the rule change; None for nothing."""
    retry: RetryChange | None
    """What the rule changes of its target groups' retries; None for nothing."""
    checks: tuple[CheckFunction, ...]
    """What is left to look at when the rule was found where it is filed."""

    def __init__(
        self,
        rule_name: str,
        priority: int,
        action: Action,
        forward: GroupChoice | None,
        queue_priority: int = DEFAULT_QUEUE_PRIORITY,
        transform: CompiledTransform | None = None,
        retry: RetryChange | None = None,
    ) -> None:
        self.retry = retry
        self.transform = transform
        self.rule_name = rule_name
        self.priority = priority
        self.queue_priority = queue_priority
        self.action = action
        self.forward = forward
        self.checks = ()
        if forward is not None:
            self.action_text = "forward"
        elif isinstance(action, Redirect):
            self.action_text = "redirect"
        else:
            self.action_text = "fixed-response"


@attrs.frozen(kw_only=True)
class RuleTrace:
    """How one rule fared with one request."""

    rule_name: str
    priority: int
    matched: bool
    failed: str | None = None
    """The first condition that did not hold, as the configuration calls it: ``path``, ``header.x-tenant``."""
    wanted: tuple[str, ...] = ()
    """Its values, one of which would have had to match."""
    seen: str | None = None
    """What the request had there."""


CheckFunction = Callable[[RoutableRequest, str], bool]
Candidates = tuple[Match, ...]
"""In order of priority."""


class PrefixIndex:
    """The candidates filed under prefixes of texts."""

    __slots__ = ("candidates", "parents", "prefixes")

    def __init__(self, entries: Mapping[bytes, Candidates]) -> None:
        self.prefixes = Prefixes(entries)
        self.candidates = [entries[prefix] for prefix in self.prefixes.texts]
        """Of each prefix, by its index."""
        self.parents = self.prefixes.parents


class Table:
    """The rules of one listener, ready for requests."""

    __slots__ = (
        "_always",
        "_exact_hosts",
        "_exact_paths",
        "_host_tails",
        "_path_heads",
        "_rules",
        "default",
    )

    default: Match
    """The listener's default action."""

    def __init__(self, rules: Sequence[tuple[Rule, Match]], default: Match) -> None:
        """Use `compile`."""
        self.default = default
        self._rules = [
            (match, tuple(compile_condition(condition) for condition in rule.conditions)) for rule, match in rules
        ]
        filed: dict[_Index, dict[bytes, list[Match]]] = {index: {} for index in _Index}
        always: list[Match] = []
        for (match, checks), filing in zip(self._rules, _choose_filings([rule for rule, _ in rules]), strict=True):
            proved = filing.condition if filing is not None and filing.is_proof else None
            match.checks = tuple(check.matches for number, check in enumerate(checks) if number != proved)
            if filing is None:
                always.append(match)
                continue
            for index, key in filing.keys:
                filed[index].setdefault(key, []).append(match)
        places = {index: {key: tuple(found) for key, found in keys.items()} for index, keys in filed.items()}
        self._exact_hosts: dict[bytes, Candidates] = places[_Index.EXACT_HOST]
        self._exact_paths: dict[bytes, Candidates] = places[_Index.EXACT_PATH]
        self._host_tails = PrefixIndex(places[_Index.HOST_TAIL]) if places[_Index.HOST_TAIL] else None
        self._path_heads = PrefixIndex(places[_Index.PATH_HEAD]) if places[_Index.PATH_HEAD] else None
        self._always: Candidates = tuple(always)

    @classmethod
    def compile(cls, listener: Listener, random: Random | None = None) -> Table:
        """Make the table of a listener's rules.

        ``random`` chooses among weighted target groups.  Raises `InvalidModel` for a regular
        expression that RE2 does not take.
        """
        random = Random() if random is None else random
        rules = sorted(listener.rules, key=lambda rule: rule.priority)
        base = listener.transform
        default = compile_transform(base)
        choices: dict[Forward, GroupChoice] = {}

        def choice(action: Action) -> GroupChoice | None:
            """One for all rules that forward alike: what many requests use is at hand sooner."""
            if not isinstance(action, Forward):
                return None
            if action not in choices:
                choices[action] = GroupChoice(action, random)
            return choices[action]

        def match(rule: Rule) -> Match:
            retry = rule.retry if rule.retry != RetryChange() else None
            forward = choice(rule.action)
            return Match(rule.name, rule.priority, rule.action, forward, rule.queue_priority, transform(rule), retry)

        def transform(rule: Rule) -> CompiledTransform | None:
            return compile_transform(base.followed_by(rule.transform)) if rule.transform != Transform() else default

        return cls(
            [(rule, match(rule)) for rule in rules],
            Match(DEFAULT_RULE_NAME, 0, listener.default_action, choice(listener.default_action), transform=default),
        )

    def match(self, request: RoutableRequest, source: str) -> Match:
        """The rule for a request from the address ``source``, or the default."""
        best = self.default
        if not self._rules:
            return best
        if self._always:
            best = self._better(best, self._always, request, source)
        if self._exact_hosts:
            found = self._exact_hosts.get(request.host)
            if found is not None:
                best = self._better(best, found, request, source)
        if self._exact_paths:
            found = self._exact_paths.get(request.path)
            if found is not None:
                best = self._better(best, found, request, source)
        if self._host_tails is not None:
            best = self._better_by_prefix(best, self._host_tails, request.host[::-1], request, source)
        if self._path_heads is not None:
            best = self._better_by_prefix(best, self._path_heads, request.path, request, source)
        return best

    def _better(self, best: Match, candidates: Candidates, request: RoutableRequest, source: str) -> Match:
        """The first candidate whose checks hold, unless ``best`` comes before it."""
        for match in candidates:
            if match.priority >= best.priority and best is not self.default:
                break
            for check in match.checks:
                if not check(request, source):
                    break
            else:
                return match
        return best

    def _better_by_prefix(
        self, best: Match, index: PrefixIndex, text: bytes, request: RoutableRequest, source: str
    ) -> Match:
        """The same for the candidates filed under any prefix of ``text``."""
        found = index.prefixes.longest(text)
        while found >= 0:
            best = self._better(best, index.candidates[found], request, source)
            found = index.parents[found]
        return best

    def trace(self, request: RoutableRequest, source: str) -> tuple[RuleTrace, ...]:
        """How the rules fare with a request, in order of priority, up to the one that takes it.

        The last entry is the rule that `match` finds; conditions are tried in the order configured.
        """
        traces = []
        for match, checks in self._rules:
            trace = _trace_rule(match, checks, request, source)
            traces.append(trace)
            if trace.matched:
                return tuple(traces)
        traces.append(RuleTrace(rule_name=self.default.rule_name, priority=self.default.priority, matched=True))
        return tuple(traces)


def _trace_rule(match: Match, checks: Sequence[Check], request: RoutableRequest, source: str) -> RuleTrace:
    for check in checks:
        if not check.matches(request, source):
            return RuleTrace(
                rule_name=match.rule_name,
                priority=match.priority,
                matched=False,
                failed=check.kind,
                wanted=check.wanted,
                seen=check.seen(request, source),
            )
    return RuleTrace(rule_name=match.rule_name, priority=match.priority, matched=True)


class _Index(enum.Enum):
    """Where a candidate can be filed."""

    EXACT_HOST = enum.auto()
    HOST_TAIL = enum.auto()
    EXACT_PATH = enum.auto()
    PATH_HEAD = enum.auto()


_Key = tuple[_Index, bytes]


@attrs.frozen
class _Filing:
    """A way to file a rule: under all values of one of its conditions."""

    condition: int
    """Which of the rule's conditions."""
    keys: tuple[_Key, ...]
    is_proof: bool
    """Finding the rule under its key proves the condition."""


def _choose_filings(rules: Sequence[Rule]) -> Iterator[_Filing | None]:
    """For each rule the filing with the fewest rules at its fullest key; None when it has to be always tried."""
    ways = [list(_filings(rule)) for rule in rules]
    crowd = Counter(key for filings in ways for filing in filings for key in filing.keys)
    crowd[_EVERY_PATH] = len(rules)

    def fullest(filing: _Filing) -> int:
        return max(crowd[key] for key in filing.keys)

    for filings in ways:
        yield min(filings, key=fullest, default=None)


def _filings(rule: Rule) -> Iterator[_Filing]:
    for number, condition in enumerate(rule.conditions):
        if isinstance(condition, HostCondition):
            places = [_host_place(pattern) for pattern in condition.patterns]
        elif isinstance(condition, PathCondition):
            places = [_path_place(pattern) for pattern in condition.patterns]
        else:
            continue
        known = [place for place in places if place is not None]
        if known and len(known) == len(places):
            keys = tuple(dict.fromkeys(key for key, _ in known))
            yield _Filing(number, keys, all(is_proof for _, is_proof in known))


def _host_place(pattern: Pattern) -> tuple[_Key, bool] | None:
    """The key that every host of this pattern is found under, and whether it is proof; None without such a key."""
    if pattern.is_regex:
        return None
    *head, tail = split_wildcard(pattern.text.lower().encode(), escapes=False)
    if tail.holes is not None:
        return None
    if not head:
        return (_Index.EXACT_HOST, tail.text), True
    if not tail.text:
        return None
    return (_Index.HOST_TAIL, tail.text[::-1]), len(head) == 1 and not head[0].text


def _path_place(pattern: Pattern) -> tuple[_Key, bool] | None:
    """As `_host_place`, for a path."""
    if pattern.is_regex:
        return None
    head, *tail = split_wildcard(pattern.text.encode(), escapes=False)
    if head.holes is not None:
        return None
    if not tail:
        return (_Index.EXACT_PATH, head.text), True
    if not head.text:
        return None
    return (_Index.PATH_HEAD, head.text), len(tail) == 1 and not tail[0].text


_EVERY_PATH = (_Index.PATH_HEAD, b"/")
