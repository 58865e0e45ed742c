"""How questions are counted in one step: Lua scripts that Redis runs whole.

Invariant: every script touches keys of one flow alone, so of one slot. A record is `popularity.Record` as it is stored.
"""

from __future__ import annotations

from agentic_flywheel.store.link import Script

# KEYS: the day's records, what was joined, what is hidden, the turns that were counted when they were delivered. ARGV:
# how many records, marks and joins are kept; how long, in seconds; the day number; then for each record its name, what
# is to be added to it (in the form of a record), and the wording that it was taken for ("" for none), or "!" and the id
# of a turn: that is counted once, however often it is sent.
COUNT = Script("""
local records, joined, hidden, delivered = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local most, most_marks, most_joined = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept, today = ARGV[4], tonumber(ARGV[5])
local HEAD = '>BI4I4I8I4I4B'

local function head_of(name)  -- the wording that stands for all, and whether anything is known of this one
    for hop = 0, 15 do
        local up = redis.call('HGET', joined, name)
        if not up then return name, hop > 0 end
        up = string.sub(up, 1, 32)
        if up == name then return name, true end
        name = up
    end
    return name, true
end

local function note(name, head)
    local known = redis.call('HGET', joined, name)
    local text = head .. today
    if known ~= text then redis.call('HSET', joined, name, text) end
end

local function join(name, other)
    local mine, known = head_of(name)
    local theirs, others_known = head_of(other)
    if mine == theirs then
        if mine ~= name then note(name, mine) end
        if theirs ~= other then note(other, theirs) end
        note(mine, mine)
    elseif known and not others_known then  -- what is new comes to what is known, so that its name stays
        note(other, mine)
        note(mine, mine)
    elseif mine == name then
        note(name, theirs)
        note(theirs, theirs)
    end  -- else both belong somewhere already: one more likeness does not make two large questions one
end

local function marks_with(old, new)
    if old == '' then return new end
    local full = #old >= most_marks * 4
    if full and struct.unpack('>I4', new) >= struct.unpack('>I4', old, #old - 3) then return old end
    local merged, i, j = {}, 1, 1
    local a, b = struct.unpack('>I4', old), struct.unpack('>I4', new)
    while #merged < most_marks and (a or b) do
        if a and (not b or a <= b) then
            merged[#merged + 1] = string.sub(old, i, i + 3)
            if a == b then
                j = j + 4
                b = j <= #new and struct.unpack('>I4', new, j) or nil
            end
            i = i + 4
            a = i <= #old and struct.unpack('>I4', old, i) or nil
        else
            merged[#merged + 1] = string.sub(new, j, j + 3)
            j = j + 4
            b = j <= #new and struct.unpack('>I4', new, j) or nil
        end
    end
    return table.concat(merged)
end

local function readable(raw) return #raw >= 26 and string.byte(raw) == 1 end

local some_hidden = redis.call('EXISTS', hidden) == 1
local fresh, joins = 0, 0
for i = 6, #ARGV, 3 do
    local name, added, taken_for = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local never = false
    if string.sub(taken_for, 1, 1) == '!' then
        never = redis.call('SADD', delivered, string.sub(taken_for, 2)) == 0
        redis.call('EXPIRE', delivered, kept)
        taken_for = ''
    end
    if some_hidden then
        for _, part in ipairs(redis.call('SMISMEMBER', hidden, string.sub(name, 1, 32), string.sub(name, -32))) do
            never = never or part == 1
        end
    end
    if not never then
        local raw = redis.call('HGET', records, name)
        if raw and readable(raw) then
            local _, asked, served, saved, first, last, count = struct.unpack(HEAD, raw)
            local _, a, s, us, from, to, more = struct.unpack(HEAD, added)
            local marks = marks_with(string.sub(raw, 27, 26 + 4 * count), string.sub(added, 27, 26 + 4 * more))
            local head = struct.pack(HEAD, 1, asked + a, served + s, saved + us, math.min(first, from),
                math.max(last, to), #marks / 4)
            redis.call('HSET', records, name, head .. marks .. string.sub(raw, 27 + 4 * count))
        else
            redis.call('HSET', records, name, added)
            fresh = fresh + 1
        end
        if taken_for ~= '' then
            join(name, taken_for)
            joins = joins + 1
        end
    end
end
redis.call('EXPIRE', records, kept)
if fresh > 0 and redis.call('HLEN', records) > most * 1.25 then
    -- Times asked and the last time as one number, so that they are sorted without a call for each comparison.
    local all, worth = redis.call('HGETALL', records), {}
    for i = 2, #all, 2 do
        local value = 0
        if readable(all[i]) then
            local _, a, _, _, _, to = struct.unpack(HEAD, all[i])
            value = math.min(a, 1048575) * 4294967296 + to
        end
        worth[i / 2] = value
    end
    local sorted = {}
    for i, value in ipairs(worth) do sorted[i] = value end
    table.sort(sorted)
    local spare, gone = #sorted - most, {}
    local edge = sorted[spare]
    for i, value in ipairs(worth) do
        if value <= edge and #gone < spare then gone[#gone + 1] = all[2 * i - 1] end
    end
    for i = 1, #gone, 500 do redis.call('HDEL', records, unpack(gone, i, math.min(i + 499, #gone))) end
end
if joins > 0 then
    redis.call('EXPIRE', joined, kept)
    if redis.call('HLEN', joined) > most_joined * 1.25 then
        local all, days = redis.call('HGETALL', joined), {}
        for i = 2, #all, 2 do days[i / 2] = tonumber(string.sub(all[i], 33)) or 0 end
        local sorted = {}
        for i, day in ipairs(days) do sorted[i] = day end
        table.sort(sorted)
        local spare, gone = #sorted - most_joined, {}
        local edge = sorted[spare]
        for i, day in ipairs(days) do
            if day <= edge and #gone < spare then gone[#gone + 1] = all[2 * i - 1] end
        end
        for i = 1, #gone, 500 do redis.call('HDEL', joined, unpack(gone, i, math.min(i + 499, #gone))) end
    end
end
""")

# Takes back what turns were counted for. ARGV: for each record its name, times asked, times served, the asker's mark.
SUBTRACT = Script("""
local HEAD, records, gone = '>BI4I4I8I4I4B', KEYS[1], 0
for i = 1, #ARGV, 4 do
    local raw = redis.call('HGET', records, ARGV[i])
    if raw and #raw >= 26 and string.byte(raw) == 1 then
        local _, asked, served, saved, from, to, count = struct.unpack(HEAD, raw)
        local left = asked - tonumber(ARGV[i + 1])
        if left <= 0 then
            redis.call('HDEL', records, ARGV[i])
            gone = gone + 1
        else
            local still = math.min(left, math.max(0, served - tonumber(ARGV[i + 2])))
            if served > 0 then saved = math.floor(saved * still / served) end
            local marks = {}
            for at = 27, 26 + 4 * count, 4 do
                local mark = string.sub(raw, at, at + 3)
                if mark ~= ARGV[i + 3] then marks[#marks + 1] = mark end
            end
            local head = struct.pack(HEAD, 1, left, still, saved, from, to, #marks)
            redis.call('HSET', records, ARGV[i], head .. table.concat(marks) .. string.sub(raw, 27 + 4 * count))
        end
    end
end
return gone
""")

# Two wordings are not the same question after all. ARGV: both. The first one leaves, or where it stands for all, the
# other one. 1 where they were one question.
PART = Script("""
local joined = KEYS[1]
local function head_of(name)
    for _ = 0, 15 do
        local up = redis.call('HGET', joined, name)
        if not up or string.sub(up, 1, 32) == name then return name end
        name = string.sub(up, 1, 32)
    end
    return name
end
local mine, theirs = head_of(ARGV[1]), head_of(ARGV[2])
if mine ~= theirs then return 0 end
redis.call('HDEL', joined, mine == ARGV[1] and ARGV[2] or ARGV[1])
return 1
""")

# Two wordings are one question, whatever was known of them. ARGV: the one whose question it is, the other one, the
# day's number, how long that is kept.
JOIN = Script("""
local joined = KEYS[1]
local function head_of(name)
    for _ = 0, 15 do
        local up = redis.call('HGET', joined, name)
        if not up or string.sub(up, 1, 32) == name then return name end
        name = string.sub(up, 1, 32)
    end
    return name
end
local mine, theirs = head_of(ARGV[1]), head_of(ARGV[2])
if mine == theirs then return 0 end
redis.call('HSET', joined, theirs, mine .. ARGV[3], mine, mine .. ARGV[3])
redis.call('EXPIRE', joined, ARGV[4])
return 1
""")

# Puts records of a backup back. KEYS: the day's records, what is hidden. ARGV: how long they are kept, in seconds, then
# for each its name and itself. For each 1 where it was put there, 0 where as much is counted there, -1 where hidden.
KEEP = Script("""
local records, hidden, kept, done = KEYS[1], KEYS[2], ARGV[1], {}
local function asked_of(raw)
    if not raw or #raw < 26 or string.byte(raw) ~= 1 then return -1 end
    local _, asked = struct.unpack('>BI4', raw)
    return asked
end
for i = 2, #ARGV, 2 do
    local name, state = ARGV[i], 0
    local parts = redis.call('SMISMEMBER', hidden, string.sub(name, 1, 32), string.sub(name, -32))
    if parts[1] == 1 or parts[2] == 1 then
        state = -1
    elseif asked_of(redis.call('HGET', records, name)) < asked_of(ARGV[i + 1]) then
        redis.call('HSET', records, name, ARGV[i + 1])
        state = 1
    end
    done[#done + 1] = state
end
redis.call('EXPIRE', records, kept)
return done
""")

# The same for what was joined. KEYS: it. ARGV: how long it is kept, then for each a wording and what it leads to, with
# the day. What is known of a wording here stays.
REJOIN = Script("""
local done = {}
for i = 2, #ARGV, 2 do done[#done + 1] = redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return done
""")

SCRIPTS = (COUNT, SUBTRACT, PART, JOIN, KEEP, REJOIN)
