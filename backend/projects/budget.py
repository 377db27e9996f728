"""The budgets of viewers: a leaky bucket per viewer and policy, in Redis (docs/decisions/0009-cost.md).

One command charges all policies of a request. The next charge of the same viewer in this process also gives back the
units that earlier requests did not use, without a command of its own. While Redis does not answer, each process has its
own buckets. Sign-ins, which have no viewer yet, are counted in a bucket per name.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Generic, TypeVar

from django.conf import settings

from .access import Viewer
from .cache.redis import server
from .errors import RateLimited

T = TypeVar("T")

# Maximum number of buckets in the memory of a process. The least recently charged are dropped.
_MAX_LOCAL = 10_000
# The bucket of all clients without a credential in open mode.
_OPEN = "open"

# The mode of a charge: nothing if a bucket would overflow; always, up to the capacity; or nothing, only to read.
_ALL_OR_NOTHING, _ANYWAY, _NEVER = "1", "0", "-1"

# ARGV[1] is one of these. Then, for each key: capacity, units restored per second, units to charge, units to give back.
# A bucket is `<level>:<time>`, and empties by itself. Returns the seconds to wait until the charge is possible (0 or
# less: now), and the units left in each bucket.
_CHARGE = """
local now = redis.call('TIME')
now = now[1] + now[2] / 1000000
local levels, wait = {}, 0
for i, key in ipairs(KEYS) do
  local capacity, rate, amount, returned = unpack(ARGV, 4 * i - 2, 4 * i + 1)
  local level, at = string.match(redis.call('GET', key) or '', '^(.+):(.+)$')
  if level then
    levels[i] = math.max(0, level - (now - at) * rate - returned)
  else
    levels[i] = 0
  end
  wait = math.max(wait, (levels[i] + amount - capacity) / rate)
end
local result = {math.ceil(wait)}
for i, key in ipairs(KEYS) do
  local capacity, rate, amount = unpack(ARGV, 4 * i - 2, 4 * i)
  if ARGV[1] == '0' or (ARGV[1] == '1' and wait <= 0) then
    levels[i] = math.min(levels[i] + amount, capacity)
  end
  redis.call('SET', key, levels[i] .. ':' .. now, 'PX', math.ceil(levels[i] / rate * 1000) + 1000)
  result[i + 1] = math.floor(capacity - levels[i])
end
return result
"""


@dataclass(frozen=True, slots=True)
class Policy:
    """A limit of `capacity` units at once. `per_s` units are restored per second."""

    name: str
    capacity: int
    per_s: float

    @property
    def window_s(self) -> int:
        """The seconds in which an empty budget is fully restored."""
        return ceil(self.capacity / self.per_s)


def cost_policy() -> Policy:
    """The cost of requests, in rows."""
    return Policy("cost", settings.COST_BUDGET, settings.COST_RESTORE_RATE)


def writes_policy() -> Policy:
    """Writes. A bulk write counts as several."""
    return Policy("writes", settings.WRITES_PER_MINUTE, settings.WRITES_PER_MINUTE / 60)


def tokens_policy() -> Policy:
    """Tokens that the viewer creates."""
    return Policy("tokens", settings.TOKENS_PER_HOUR, settings.TOKENS_PER_HOUR / 3600)


def invitations_policy() -> Policy:
    """Invitations that the viewer sends."""
    return Policy("invitations", settings.INVITATIONS_PER_HOUR, settings.INVITATIONS_PER_HOUR / 3600)


def sign_ins_policy() -> Policy:
    """Sign-ins and changes of the password. Only those with the right password are charged."""
    return Policy("sign-ins", settings.SIGN_INS_PER_HOUR, settings.SIGN_INS_PER_HOUR / 3600)


@dataclass(frozen=True, slots=True)
class Balance:
    """The units that are left of a budget."""

    policy: Policy
    available: int

    @property
    def restored_in_s(self) -> int:
        return ceil((self.policy.capacity - self.available) / self.policy.per_s)


Charges = Sequence[tuple[Policy, int]]


def charge(viewer: Viewer, charges: Charges) -> list[Balance]:
    """Charge a viewer, and return what is left of each budget.

    Raises RateLimited where a budget has too few units left, and charges nothing then. With `COST_MODE=measure`, it
    charges and never raises.
    """
    if viewer.is_system or not charges:
        return []
    is_enforced = settings.COST_MODE == "enforce"
    wait_s, balances = _charge(_bucket_of(viewer), charges, _ALL_OR_NOTHING if is_enforced else _ANYWAY)
    if wait_s > 0 and is_enforced:
        raise RateLimited(wait_s, balances)
    return balances


def require_for_name(name: str, policy: Policy) -> None:
    """Raise RateLimited where the budget of a name has less than one unit left. Charges nothing."""
    wait_s, balances = _charge(f"name:{name}", [(policy, 1)], _NEVER)
    if wait_s > 0 and settings.COST_MODE == "enforce":
        raise RateLimited(wait_s, balances)


def charge_name(name: str, policy: Policy) -> None:
    """Charge one unit to the budget of a name, even if less is left."""
    _charge(f"name:{name}", [(policy, 1)], _ANYWAY)


def _charge(bucket: str, charges: Charges, mode: str) -> tuple[int, list[Balance]]:
    """Charge by `mode`. Return the seconds to wait until the charge is possible (0 or less: now), and the balances."""
    names = [f"budget:{policy.name}:{bucket}" for policy, _ in charges]
    returned = [_unused.take(name) for name in names]
    arguments = [
        argument
        for (policy, amount), unused in zip(charges, returned, strict=True)
        for argument in (policy.capacity, policy.per_s, amount, unused)
    ]

    def command(redis: Any) -> list[int]:
        result: list[int] = redis.eval(_CHARGE, len(names), *map(server.key, names), mode, *arguments)
        return result

    result = server.call(command)
    if result is None:
        result = _local.charge(names, charges, returned, mode)
    wait_s, *available = result
    return wait_s, [Balance(policy, left) for (policy, _), left in zip(charges, available, strict=True)]


def give_back(viewer: Viewer, policy: Policy, unused: int) -> None:
    """Give back units that were charged but not used. The viewer's next charge takes them into account."""
    if unused > 0 and not viewer.is_system:
        _unused.add(f"budget:{policy.name}:{_bucket_of(viewer)}", unused, policy)


def charge_refused(viewer: Viewer, units: int) -> None:
    """Charge what the refusal of a document took. Where too little is left, `check_refused` raises for a while."""
    try:
        charge(viewer, [(cost_policy(), units)])
    except RateLimited as error:
        _blocked.add(_bucket_of(viewer), error.retry_after_s)


def check_refused(viewer: Viewer) -> None:
    """Raise RateLimited while the viewer's budget does not cover their last refused document, in this process."""
    if (wait_s := _blocked.wait_s(_bucket_of(viewer))) > 0:
        raise RateLimited(ceil(wait_s))


def _bucket_of(viewer: Viewer) -> str:
    """All tokens and sessions of a user share one bucket."""
    if viewer.user_id is not None:
        return f"user:{viewer.user_id}"
    return _OPEN if viewer.sees_all else f"address:{viewer.address}"


class _PerBucket(Generic[T]):
    """The values of the `_MAX_LOCAL` buckets that were set last in this process. `_put` needs the lock."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def _put(self, name: str, value: T) -> None:
        self._values[name] = value
        self._values.move_to_end(name)
        if len(self._values) > _MAX_LOCAL:
            self._values.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._values.clear()


class _UnusedUnits(_PerBucket[tuple[int, float]]):
    """Units to give back. They expire when the bucket would be empty without them."""

    def add(self, name: str, units: int, policy: Policy) -> None:
        with self._lock:
            before, _ = self._values.get(name, (0, 0.0))
            self._put(name, (min(before + units, policy.capacity), time.monotonic() + policy.window_s))

    def take(self, name: str) -> int:
        with self._lock:
            units, until = self._values.pop(name, (0, 0.0))
        return units if time.monotonic() < until else 0


class _Blocked(_PerBucket[float]):
    """The time until which a bucket is blocked."""

    def add(self, name: str, wait_s: float) -> None:
        with self._lock:
            self._put(name, time.monotonic() + wait_s)

    def wait_s(self, name: str) -> float:
        return self._values.get(name, 0.0) - time.monotonic()


class _LocalBuckets(_PerBucket[tuple[float, float]]):
    """The level of a bucket and its time, used while Redis does not answer."""

    def charge(self, names: Sequence[str], charges: Charges, returned: Sequence[int], mode: str) -> list[int]:
        """Charge buckets and return the result, like `_CHARGE`."""
        now, wait, levels = time.monotonic(), 0.0, []
        with self._lock:
            for name, (policy, amount), unused in zip(names, charges, returned, strict=True):
                level, at = self._values.get(name, (0.0, now))
                levels.append(max(0.0, level - (now - at) * policy.per_s - unused))
                wait = max(wait, (levels[-1] + amount - policy.capacity) / policy.per_s)
            for place, (name, (policy, amount)) in enumerate(zip(names, charges, strict=True)):
                if mode == _ANYWAY or (mode == _ALL_OR_NOTHING and wait <= 0):
                    levels[place] = min(levels[place] + amount, policy.capacity)
                self._put(name, (levels[place], now))
        capacities = (policy.capacity for policy, _ in charges)
        return [ceil(wait), *(int(capacity - level) for capacity, level in zip(capacities, levels, strict=True))]


_unused = _UnusedUnits()
_local = _LocalBuckets()
_blocked = _Blocked()


# --- Headers of https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ -------------------
def rate_limit_headers(balances: Sequence[Balance]) -> dict[str, str]:
    """`RateLimit` and `RateLimit-Policy`; none if nothing was charged."""
    if not balances:
        return {}
    policies = (
        f'"{balance.policy.name}";q={balance.policy.capacity};w={balance.policy.window_s}' for balance in balances
    )
    limits = (f'"{balance.policy.name}";r={balance.available};t={balance.restored_in_s}' for balance in balances)
    return {"RateLimit": ", ".join(limits), "RateLimit-Policy": ", ".join(policies)}
