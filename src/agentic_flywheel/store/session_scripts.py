"""What changes a session in one step: Lua scripts that Redis runs whole.

Invariant: every script touches keys of one session alone, so of one slot; all of what a call appends goes in or, where
the server is full or read-only, none.
"""

from __future__ import annotations

from agentic_flywheel.store.link import Script

# One slot: session, turns, ids; seven arguments for each turn. Returns how many turns were appended, those that were
# there already left out. All turns of one call go in or, where the server is full or read-only, none.
APPEND = Script("""
local session, turns, ids = KEYS[1], KEYS[2], KEYS[3]
local appended = 0
local fresh = redis.call('EXISTS', session) == 0
local holder = not fresh and redis.call('HGET', session, 'owner') or ''
for i = 6, #ARGV, 7 do
    if ARGV[i] ~= '' and holder ~= '' and ARGV[i] ~= holder then
        return redis.error_reply("NOTOWNER the session belongs to another user")
    end
    if holder == '' then holder = ARGV[i] end
end
for i = 1, #ARGV, 7 do
    local turn, payload, at, flow, id, owner, title =
        ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6]
    if fresh or redis.call('HEXISTS', ids, turn) == 0 then
        local place = redis.call('XADD', turns, '*', 't', payload)
        redis.call('HSET', ids, turn, place)
        if fresh then
            redis.call('HSET', session, 'created_at', at, 'id', id, 'title', title,
                'last_active_at', at, 'flow', flow, 'turns', 1)
            fresh = false
        else
            if redis.call('HSETNX', session, 'created_at', at) == 1 then redis.call('HSET', session, 'id', id) end
            redis.call('HSETNX', session, 'title', title)
            redis.call('HSET', session, 'last_active_at', at, 'flow', flow)
            redis.call('HINCRBY', session, 'turns', 1)
        end
        if owner ~= '' then redis.call('HSETNX', session, 'owner', owner) end
        appended = appended + 1
    end
end
return appended
""")

# Takes one turn out of its session; its id stays, without a place, so that the same turn never comes in again. XDEL
# would only mark an entry, its bytes stay in memory and in backups: so the stream is written anew, in O(turns). ARGV:
# the turn, the title that it gave the session, and the session's title without it. 1 where there was such a turn.
REMOVE = Script("""
local session, turns, ids = KEYS[1], KEYS[2], KEYS[3]
local place = redis.call('HGET', ids, ARGV[1])
if not place or place == '' then return 0 end
local all = redis.call('XRANGE', turns, '-', '+')
redis.call('DEL', turns)
for _, entry in ipairs(all) do
    if entry[1] ~= place then redis.call('XADD', turns, entry[1], unpack(entry[2])) end
end
redis.call('HSET', ids, ARGV[1], '')
redis.call('HINCRBY', session, 'turns', -1)
if redis.call('HGET', session, 'title') == ARGV[2] then
    if ARGV[3] == '' then redis.call('HDEL', session, 'title')
    else redis.call('HSET', session, 'title', ARGV[3]) end
end
return 1
""")

# Changes fields of a session that exists; 0 where it does not.
AMEND = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
""")

# Reads turns before the newest ARGV[1], newest first: at most ARGV[2], and no more than ARGV[3] bytes of them. Page by
# page, since an entry may be of any size.
EARLIER = Script("""
local skip, left, room = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local found, edge = {}, '+'
while true do
    local wanted = math.min(skip + left, 32)
    local page = redis.call('XREVRANGE', KEYS[1], edge, '-', 'COUNT', wanted)
    for _, entry in ipairs(page) do
        if skip > 0 then
            skip = skip - 1
        else
            room = room - #entry[2][2]
            if room < 0 then return found end
            found[#found + 1] = entry[2][2]
            left = left - 1
            if left == 0 then return found end
        end
    end
    if #page < wanted then return found end
    edge = '(' .. page[#page][1]
end
""")

SCRIPTS = (APPEND, REMOVE, AMEND, EARLIER)
