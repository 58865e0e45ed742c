"""The least rights that a user of Redis needs for all of this, as an access control list.

Invariant: every command here is sent by some part of the product, and no part sends another: a test walks through the
whole product as a user with exactly these rights, and compares them with what the server counted.
"""

from __future__ import annotations

#: All keys of ours, and no channels.
KEYS = "afw:v1:*"
#: Needed by everybody. `select` only where the address names a database other than 0.
COMMANDS = tuple(
    """
    hello select ping eval evalsha
    get set unlink del exists expire pexpire pttl time
    hget hmget hset hsetnx hdel hexists hgetall hincrby hlen
    sadd smembers smismember lpush ltrim lrange
    zadd zrem zcard zcount zscore zscan zrangebyscore zremrangebyscore zrevrange zrevrangebyscore
    xadd xread xrange xrevrange
    """.split()
)
#: What else particular uses need.
MORE = {
    "doctor": ("info", "config|get"),
    "near": ("client|tracking", "client|trackinginfo"),
    "rotation": ("hscan", "lset", "persist", "rename", "xlen"),
    "replicas": ("wait",),
    "sentinel": ("role",),
    "cluster": ("cluster|slots", "asking", "wait"),
}
#: What uses need that only servers with a module have: any other server refuses a list with such names.
MODULES = {
    "engine": ("ft._list", "ft.create", "ft.dropindex", "ft.info", "ft.profile", "ft.search", "hlen", "hscan", "srem")
}


def access_list(user: str, *uses: str) -> list[str]:
    """The words of `ACL SETUSER` that make a user with these rights; the password is for the operator to add.

    >>> " ".join(access_list("flywheel", "doctor"))[:62]
    'flywheel on resetkeys ~afw:v1:* resetchannels -@all +hello +se'
    """
    commands = dict.fromkeys([*COMMANDS, *(command for use in uses for command in {**MORE, **MODULES}[use])])
    return [user, "on", "resetkeys", f"~{KEYS}", "resetchannels", "-@all", *(f"+{command}" for command in commands)]
