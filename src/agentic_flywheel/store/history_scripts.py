"""What changes the documents of the query engine's index in one step, and who may (see `history_docs`).

Invariant: a document and what is counted of it change together; whatever was sent twice acts once. All keys lie in one
slot, those whose names a script makes (`lacking`) included.
"""

from __future__ import annotations

from agentic_flywheel.store.link import Script

# Takes a turn in. ARGV: its number, session, flow, how many words, its name, what keys of `lacking` begin with, and the
# fields. 0: it was there already; -1: there is no index.
TAKE = Script("""
local doc, turns, sessions, state, flows = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local embedders = redis.call('HMGET', state, 'release', 'embedders')
if not embedders[1] then return -1 end
if redis.call('EXISTS', doc) == 1 then return 0 end
local sequence = redis.call('HINCRBY', state, 'sequence', 1)
redis.call('SADD', turns, ARGV[1])
redis.call('HSETNX', sessions, ARGV[2], '')
redis.call('SADD', flows, ARGV[3])
redis.call('HSET', doc, 'n', sequence, 'c', ARGV[4], unpack(ARGV, 7))
redis.call('HINCRBY', state, 'docs', 1)
redis.call('HINCRBY', state, 'words', ARGV[4])
for embedder in string.gmatch(embedders[2] or '', '(%S+):%d+') do
    redis.call('ZADD', ARGV[6] .. embedder, sequence, ARGV[5])
end
return 1
""")

# Forgets a turn. ARGV: its number, its name, what keys of `lacking` begin with. A full server takes this as well.
FORGET = Script("""#!lua flags=allow-oom
local doc, turns, state = KEYS[1], KEYS[2], KEYS[3]
redis.call('SREM', turns, ARGV[1])
local words = redis.call('HGET', doc, 'c')
if not words then return 0 end
redis.call('UNLINK', doc)
redis.call('HINCRBY', state, 'docs', -1)
redis.call('HINCRBY', state, 'words', -tonumber(words))
for embedder in string.gmatch(redis.call('HGET', state, 'embedders') or '', '(%S+):%d+') do
    redis.call('ZREM', ARGV[3] .. embedder, ARGV[2])
end
return 1
""")

# Keeps a vector, unless its turn is gone. ARGV: field, vector, name.
EMBED = Script("""
redis.call('ZREM', KEYS[2], ARGV[3])
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
""")

# Puts an embedder first among those whose vectors are kept, with its dimension; says which are given up for it.
ENLIST = Script("""
local kept, gone, dimension = {}, {}, ARGV[2]
for name, size in string.gmatch(redis.call('HGET', KEYS[1], 'embedders') or '', '(%S+):(%d+)') do
    if name ~= ARGV[1] then table.insert(kept, name .. ':' .. size)
    elseif dimension == '0' then dimension = size end
end
table.insert(kept, 1, ARGV[1] .. ':' .. dimension)
while #kept > tonumber(ARGV[3]) do table.insert(gone, (string.match(table.remove(kept), '(%S+):'))) end
redis.call('HSET', KEYS[1], 'embedders', table.concat(kept, ' '))
return gone
""")

# Sets places, unless somebody else has taken the lease over. ARGV: our token ("" for none), names and values.
PLACE = Script("""
if ARGV[1] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if redis.call('HEXISTS', KEYS[1], 'release') == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
""")

# The lease of whoever brings the index up to date: prolonged and given up by its owner alone. ARGV: token, and
# milliseconds.
PROLONG = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")
GIVE_UP = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")

SCRIPTS = (TAKE, FORGET, EMBED, ENLIST, PLACE, PROLONG, GIVE_UP)
