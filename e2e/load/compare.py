"""Compare our server with other ACME servers: rounds in turn, and the ratios of each round.

The machine may do other work, and its speed may vary, so figures of different times say little. In each round, every
server has the same load for a few seconds, one after another; a ratio relates figures of one round. The spread over the
rounds shows how much they can be trusted.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from e2e.load.drive import ORDER
from e2e.load.measure import CLIENT, SERVER, Measurement, Plan, Target
from e2e.load.tables import markdown, ratio, spread

CPU_LIMIT = 1.3
"""Performance target: CPU of our server per order, in multiples of step-ca's."""
STEP_CA = "step-ca"
PLANE = ("kube-apiserver", "etcd")

Body = Mapping[str, Any]
"""The document of a measurement (see report.document)."""
Figure = Callable[[Body], float | None]


def in_turn(
    targets: Sequence[Target], plan: Plan, measure: Callable[[Target, Plan], Measurement], *, rounds: int
) -> Iterator[list[Measurement]]:
    """Measure all targets in each round, and begin each round with another one; the results are in the order given.

    The orders and the warm-up of the plan are those of all rounds.
    """
    share = replace(
        plan, orders=max(1, plan.orders // rounds), warm_up=-(-plan.warm_up // rounds), floor=False, renewal=False
    )
    for number in range(rounds):
        first = number % len(targets)
        turn = (*range(first, len(targets)), *range(first))
        measured = {each: measure(targets[each], share) for each in turn}
        yield [measured[each] for each in range(len(targets))]


def rate(body: Body) -> float | None:
    """Orders per second."""
    return body["ordersPerSecond"] or None


def median_latency(body: Body) -> float | None:
    """The p50 of whole orders, in milliseconds."""
    p50: float | None = body["latencyMilliseconds"].get(ORDER, {}).get("p50")
    return p50


def cpu(process: str) -> Figure:
    """CPU milliseconds of a process per order."""
    return lambda body: body["cpuMillisecondsPerOrder"].get(process)


def server_of(figure: Figure, base: Figure, at: int, rounds: Sequence[Sequence[Body]]) -> list[float | None]:
    """A figure of the server at this place in each round, in multiples of `base` of the first server."""
    return [ratio(figure(each[at]), base(each[0])) for each in rounds]


def table(rounds: Sequence[Sequence[Body]]) -> str:
    """The ratios of each server to the first one: median, lowest and highest of the rounds."""
    server, first = cpu(SERVER), rounds[0][0]["target"]
    columns: list[tuple[str, Figure, Figure]] = [
        ("orders/s", rate, rate),
        ("p50", median_latency, median_latency),
        ("server CPU per order", server, server),
        *((f"{name} CPU", cpu(name), server) for name in PLANE),
        ("client CPU", cpu(CLIENT), cpu(CLIENT)),
    ]
    rows = [(f"in multiples of {first}", *(title for title, _, _ in columns))]
    for at, body in enumerate(rounds[0]):
        cells = [spread(server_of(figure, base, at, rounds)) for _, figure, base in columns]
        rows.append((body["target"], *(cells if at else ("1" if each else "" for each in cells))))
    return markdown(rows)


def head(rounds: Sequence[Sequence[Body]]) -> str:
    """What was measured, on what, and what the first server's figures were, since 1 stands for them."""
    bodies = [each[0] for each in rounds]
    first, machine = bodies[0], bodies[0]["machine"]
    plan = first["plan"]
    ones = [
        statistics.median(found)
        for figure in (rate, median_latency, cpu(SERVER))
        if (found := [value for value in map(figure, bodies) if value is not None])
    ]
    one = "{:.1f} orders/s, p50 {:.1f} ms, {:.2f} ms of CPU per order".format(*ones) if len(ones) == 3 else "unknown"
    return (
        f"{len(rounds)} rounds in turn with {plan['orders']} orders by {plan['challenge']} for each server,"
        f" {plan['names']} name{'s'[: plan['names'] > 1]} each,"
        f" {plan['clients']} clients, {plan['accounts']} accounts\n"
        f"{machine['cores']} cores of {machine['processor']}, Python {machine['python']}\n"
        f"1 stands for {first['target']}: {one}"
    )


def failures(rounds: Sequence[Sequence[Body]]) -> list[str]:
    """A line for each kind of error of a server in a round, with the text of the first one."""
    return [
        f"{body['target']}: {count} x {kind}, such as: {body['errorTexts'][kind][0]}"
        for bodies in rounds
        for body in bodies
        for kind, count in body["errors"].items()
    ]


def promises(rounds: Sequence[Sequence[Body]], ours: str) -> list[tuple[str, bool]]:
    """The performance target of our server beside step-ca, if that is the first server, and whether it was met."""
    targets = [each["target"] for each in rounds[0]]
    found = server_of(cpu(SERVER), cpu(SERVER), targets.index(ours), rounds)
    ratios = [each for each in found if each is not None]
    if targets[0] != STEP_CA or not ratios:
        return []
    times = statistics.median(ratios)
    return [(f"CPU of the server at most {CPU_LIMIT:g} times step-ca's: {times:.2f}", times <= CPU_LIMIT)]
