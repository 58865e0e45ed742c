"""What changes a session in one step: Lua scripts that Redis runs whole.

Invariant: every script touches keys of one session alone, so of one slot; all of what a call appends goes in or, where
the server is full or read-only, none.
"""

from __future__ import annotations

from agentic_flywheel.store.link import Script

# One slot: session, turns, ids; seven arguments for each turn. Returns how many turns were appended, those that were
# there already left out. All turns of one call go in or, where the server is full or read-only, none. Titles are
# written as by `session_headers.title_word`; a weak one ("~") gives way to the first that is not. A session that is
# begun has nothing of one before it: where Redis evicted what was known of that (allkeys-*), nobody knows whose it was.
APPEND = Script("""
local session, turns, ids = KEYS[1], KEYS[2], KEYS[3]
local appended = 0
local function name(turn, word)
    if word == '' then return end
    local weak, title = string.sub(word, 1, 1) == '~', string.sub(word, 2)
    if redis.call('HSETNX', session, 'title', title) == 1
            or (not weak and redis.call('HGET', session, 'title_weak') == '1') then
        redis.call('HSET', session, 'title', title, 'title_from', turn, 'title_weak', weak and '1' or '')
    end
end
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
        local place = fresh and redis.call('XADD', turns, 'MAXLEN', 1, '*', 't', payload)
            or redis.call('XADD', turns, '*', 't', payload)
        redis.call('HSET', ids, turn, place)
        if fresh then
            redis.call('HSET', session, 'created_at', at, 'id', id, 'last_active_at', at, 'flow', flow, 'turns', 1)
            fresh = false
        else
            if redis.call('HSETNX', session, 'created_at', at) == 1 then redis.call('HSET', session, 'id', id) end
            redis.call('HSET', session, 'last_active_at', at, 'flow', flow)
            redis.call('HINCRBY', session, 'turns', 1)
        end
        name(turn, title)
        if owner ~= '' then redis.call('HSETNX', session, 'owner', owner) end
        appended = appended + 1
    end
end
return appended
""")

# Begins a session without turns, as at a moment (ARGV: the moment, the id); 0 where there is one.
BEGIN = Script("""
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('XADD', KEYS[2], 'MAXLEN', 0, '*', 't', '') end
redis.call('HSET', KEYS[1], 'created_at', ARGV[1], 'last_active_at', ARGV[1], 'id', ARGV[2])
return 1
""")

# Takes turns out of their session; their ids stay, without a place, so that the same turns never come in again. XDEL
# would only mark an entry, its bytes stay in memory and in backups: so the stream is written anew, in O(turns). ARGV:
# the title (a word as above) and its turn that the session has without them, where one of them gave the title; then the
# turns. How many of them there were.
REMOVE = Script("""
local session, turns, ids = KEYS[1], KEYS[2], KEYS[3]
local places, removed, titled = {}, 0, redis.call('HGET', session, 'title_from')
for i = 3, #ARGV do
    local place = redis.call('HGET', ids, ARGV[i])
    if place and place ~= '' then
        places[place] = true
        removed = removed + 1
        redis.call('HSET', ids, ARGV[i], '')
        if titled == ARGV[i] then titled = true end
    end
end
if removed == 0 then return 0 end
local all = redis.call('XRANGE', turns, '-', '+')
redis.call('DEL', turns)
for _, entry in ipairs(all) do
    if not places[entry[1]] then redis.call('XADD', turns, entry[1], unpack(entry[2])) end
end
redis.call('HINCRBY', session, 'turns', -removed)
if titled == true then
    redis.call('HDEL', session, 'title', 'title_from', 'title_weak')
    if ARGV[1] ~= '' then
        local weak = string.sub(ARGV[1], 1, 1) == '~' and '1' or ''
        redis.call('HSET', session, 'title', string.sub(ARGV[1], 2), 'title_from', ARGV[2], 'title_weak', weak)
    end
end
return removed
""")

# Removes a session that has no turn (any more), with all that stands beside it; 0 where it has one.
CLOSE = Script("""
if #redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1) > 0 then return 0 end
return redis.call('DEL', unpack(KEYS))
""")

# Changes fields of a session that exists, and takes those away that are given as ""; 0 where there is no session.
AMEND = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for i = 1, #ARGV, 2 do
    if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
    else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 1
""")

# Ties a session to another one (ARGV: "1" and the other's id) or unties it ("" and the id). 1 where it was tied before,
# 0 where it was not, -1 where there is no such session, -2 where it is tied to as many (ARGV[3]) as may be.
LINK = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
local kept, there = {}, 0
for _, id in ipairs(cjson.decode(redis.call('HGET', KEYS[1], 'links') or '[]')) do
    if id == ARGV[2] then there = 1 else kept[#kept + 1] = id end
end
if ARGV[1] == '1' then
    if #kept >= tonumber(ARGV[3]) then return -2 end
    kept[#kept + 1] = ARGV[2]
end
if #kept == 0 then redis.call('HDEL', KEYS[1], 'links')
else redis.call('HSET', KEYS[1], 'links', cjson.encode(kept)) end
return there
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

SCRIPTS = (APPEND, BEGIN, REMOVE, CLOSE, AMEND, LINK, EARLIER)
