-- SPDX-License-Identifier: Apache-2.0
-- Serves ops of leases on counters in Redis: the state machine of ledger.h, word for word, so that
-- each op is atomic whatever the number of engines. test_store_redis runs both side by side.
--
-- KEYS[1]    the epoch: "<id> <first: 1 or 0> <begun, us> <run_id of the Redis it began on>"
-- KEYS[2]    "<lost> <doubts> <doubted>": when durable counters were lost last, how often another run of
--            Redis took over, and when it did so last, us. A durable counter remembers the number of
--            doubts that it is sure of: one that is behind may lack what was granted elsewhere
-- KEYS[3..]  the counter of each op
-- ARGV       the engine's epoch, the edge's epoch, the time that the engine expects, how much later
--            it may be, how much earlier, how long a new epoch warms; then 19 for each op: kind,
--            limit, burst, window, lease time, millionths set aside; begin, end and rest of the calendar
--            window; op, lease, known, want, ahead, min, spent, returned, debt; whether the
--            counter is durable: 1 or 0
-- Returns    { "ok", now, status, granted, ttl, remaining, reset, retry, ... }: all times but now in ms
--        or  { "epoch", now, value } when the epoch is not the engine's (value "": there is none)
--        or  { "clock", now } when time did not go on as it should have; nothing was changed
--
-- All times are microseconds of Redis's own clock. Numbers are doubles, exact up to 2^53.

local ENDED_KEPT, SPANS, MAX_LEASES, AHEAD_PARTS = 1, 128, 512, 4
local SLOWLY = 1 - 1e-9
local SLOTS_RETRY_MS, RETRY_LOST_MS = 50, 250

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local expected = tonumber(ARGV[3])
if now > expected + tonumber(ARGV[4]) or now < expected - tonumber(ARGV[5]) then
    return { 'clock', now }
end
local value = redis.call('GET', KEYS[1]) or ''
local epoch, first, begun = string.match(value, '^(%S+) (%d) (%d+) %S+$')
if epoch ~= ARGV[1] then return { 'epoch', now, value } end
local same_epoch = epoch == ARGV[2]
local empty_at = tonumber(begun) + tonumber(ARGV[6]) -- when a counter that nobody used was empty
local warming = first == '0' and now < empty_at

-- --- one counter: c is its state, r the rule ---

local function held(c, l)
    if l.over then return 0 end
    local gone = l.returned
    if c.kind ~= 'slots' then gone = gone + l.spent end
    return math.max(0, l.granted - gone)
end

local function outstanding(c)
    local sum = 0
    for _, l in ipairs(c.leases) do sum = sum + held(c, l) end
    return sum
end

-- What is left of a figure of the rule when shares are set aside.
local function less_aside(r, v)
    local ppm = math.min(r.aside, 1000000)
    local million, rest = math.floor(v / 1000000), v % 1000000
    return v - (million * ppm + math.floor(rest * ppm / 1000000))
end

local function rate(r) return less_aside(r, r.limit) / r.window * SLOWLY end

local function refill(c, r, at)
    local room = less_aside(r, r.burst) - outstanding(c)
    if at > c.at then
        c.level = c.level + (at - c.at) * rate(r)
        c.at = at
    end
    if c.level > room then c.level = room end
end

local function count_spent(c, r, at, units)
    if units == 0 then return end
    if c.kind == 'fixed' then
        c.used = c.used + units
    elseif c.kind == 'sliding' then
        local last = c.spans[#c.spans]
        if last then
            at = math.max(at, last[2])
            if (r.limit > SPANS and at - last[1] < math.floor(r.window / SPANS)) or #c.spans == SPANS + 2 then
                last[2] = at
                last[3] = last[3] + units
                return
            end
        end
        c.spans[#c.spans + 1] = { at, at, units }
    end
end

local function end_lease(c, r, l)
    local lost = held(c, l)
    if c.kind == 'bucket' then refill(c, r, l.ends) end
    l.over = true
    count_spent(c, r, l.ends, lost)
end

local function first_to_end(c)
    local found
    for _, l in ipairs(c.leases) do
        if not l.over and (not found or l.ends < found.ends) then found = l end
    end
    return found
end

local function drop_old(c, r)
    local leases, spans = {}, {}
    for _, l in ipairs(c.leases) do
        if not l.over or l.ends + r.lease * ENDED_KEPT > now then leases[#leases + 1] = l end
    end
    c.leases = leases
    for _, s in ipairs(c.spans) do
        if s[2] + r.window > now then spans[#spans + 1] = s end
    end
    c.spans = spans
end

-- Follows the calendar. A window of before (a wall clock that was set back) opens nothing again.
local function roll_window(c, r)
    c.ends = now + r.left
    if r.ends <= c.first then return end
    local next = r.begins >= c.last
    c.first, c.last = r.begins, r.ends
    if not next then return end
    c.used, c.aside, c.aside_for = 0, 0, 0
    for _, l in ipairs(c.leases) do
        l.over = true
        l.ends = math.min(l.ends, now)
    end
end

-- Of a calendar window, what remains is shared when an edge falls silent.
local function set_aside(c, r)
    if c.aside_for == r.aside then return end
    local remained = math.max(0, r.limit - c.used - outstanding(c))
    c.aside_for = r.aside
    c.aside = remained - less_aside(r, remained)
end

local function advance(c, r)
    if c.kind == 'bucket' and c.burst ~= r.burst then
        c.level = c.level + r.burst - c.burst -- what was used stays used
        c.burst = r.burst
    end
    if c.kind == 'fixed' then roll_window(c, r) end
    local l = first_to_end(c)
    while l and l.ends <= now do
        end_lease(c, r, l)
        l = first_to_end(c)
    end
    if c.kind == 'bucket' then refill(c, r, now) end
    if c.kind == 'fixed' then set_aside(c, r) end
    drop_old(c, r)
end

local function new_counter(r, full, empty)
    local c = { kind = r.kind, level = 0, at = now, burst = r.burst, used = 0, aside = 0, aside_for = 0,
        first = r.begins, last = r.ends, ends = now + r.left, leases = {}, spans = {} }
    if r.kind == 'bucket' then
        c.level = full and r.burst or 0
        if not full then c.at = empty end
        if now > c.at then refill(c, r, now) end
    elseif r.kind == 'sliding' then
        if not full then c.spans[1] = { empty, empty, r.limit } end
        drop_old(c, r)
    elseif r.kind == 'fixed' then
        local begun = math.max(0, r.ends - r.begins - r.left)
        if not full and empty + begun >= now then c.used = r.limit end
    end
    return c
end

local function capacity(r) return r.kind == 'bucket' and r.burst or r.limit end

local function level(c, r)
    if c.kind == 'bucket' then return c.level end
    if c.kind == 'fixed' then return r.limit - c.used - c.aside - outstanding(c) end
    local v = less_aside(r, r.limit) - outstanding(c)
    for _, s in ipairs(c.spans) do v = v - s[3] end
    return v
end

local function left(c, r) return math.max(0, math.floor(level(c, r))) end

local function until_first_end(c)
    local l = first_to_end(c)
    return l and math.max(0, l.ends - now) or 0
end

local function window_left(c) return math.max(0, c.ends - now) end

local function refill_time(r, units)
    return math.min(math.ceil(math.max(0, units / math.max(rate(r), 1e-15))), 1e15)
end

local function wait_for(c, r, units)
    local missing = units - level(c, r)
    if c.kind == 'bucket' then
        local refilled = refill_time(r, missing)
        if units > less_aside(r, r.burst) - outstanding(c) then return math.max(refilled, until_first_end(c)) end
        return refilled
    elseif c.kind == 'sliding' then
        for _, s in ipairs(c.spans) do
            missing = missing - s[3]
            if missing <= 0 then return s[2] + r.window - now end
        end
        return until_first_end(c)
    elseif c.kind == 'fixed' then
        if c.used + c.aside + units <= r.limit then return until_first_end(c) end
        return window_left(c)
    end
    return SLOTS_RETRY_MS * 1000
end

local function until_unused(c, r)
    if c.kind == 'bucket' then return refill_time(r, r.burst - level(c, r)) end
    if c.kind == 'fixed' then return c.used + outstanding(c) > 0 and window_left(c) or 0 end
    if c.kind == 'slots' then return 0 end
    if outstanding(c) > 0 then return r.window end
    return #c.spans > 0 and c.spans[#c.spans][2] + r.window - now or 0
end

local function ms(us) return math.ceil(us / 1000) end

local function excess(l) return l.debt + math.max(0, l.spent + l.returned - l.granted) end

-- A later op of the edge came first: it has one under way at a time, and its figures only grow. So
-- nobody waits for the answer to this one, and the edge may have ended since.
local function is_overtaken(l, op)
    return op.spent < l.spent or op.returned < l.returned or op.debt < l.debt
end

local function report(c, r, l, op)
    local spent, debt, returned, over = l.spent, l.debt, l.returned, excess(l)
    if c.kind ~= 'slots' then
        l.spent = math.max(l.spent, op.spent)
        l.debt = math.max(l.debt, op.debt)
    end
    local returnable = math.max(0, l.granted - l.spent)
    l.returned = math.max(l.returned, math.min(op.returned, returnable))
    if c.kind == 'bucket' then c.level = c.level + (l.returned - returned) - (excess(l) - over) end
    count_spent(c, r, now, l.spent - spent + (l.debt - debt))
end

-- Nil: as many live ones as there may be. Forgets the ended one that ended first, when the list is full.
local function add_lease(c, id)
    if #c.leases >= MAX_LEASES then
        local oldest
        for i, l in ipairs(c.leases) do
            if l.over and (not oldest or l.ends < c.leases[oldest].ends) then oldest = i end
        end
        if not oldest then return nil end
        table.remove(c.leases, oldest)
    end
    local l = { id = id, granted = 0, spent = 0, returned = 0, debt = 0, ends = 0, over = false }
    c.leases[#c.leases + 1] = l
    return l
end

-- How many units the ask gets: what it needs, as far as there is, and of what lies ahead so much
-- that the others will find enough.
local function portion(c, available, need, ahead, is_new)
    local sharers = is_new and 1 or 0
    for _, l in ipairs(c.leases) do
        if not l.over then sharers = sharers + 1 end
    end
    if available <= need then return available end
    return need + math.min(ahead, math.floor((available - need) / (AHEAD_PARTS * (sharers + 1))))
end

-- Returns status, retry, and the lease, which it makes when there is something for it.
local function grant(c, r, l, op)
    local have = l and l.granted or 0
    local total, available = op.known + op.want, left(c, r)
    if have >= total then return 'granted', 0, l end
    local need, least = total - have, math.max(op.min, 1)
    if least > capacity(r) then return 'never', 0, l end
    least = have - op.known >= least and 1 or least - (have - op.known)
    if available < least then return 'refused', ms(wait_for(c, r, least)), l end
    local units = portion(c, available, need, op.ahead, not l)
    if not l then
        l = add_lease(c, op.lease)
        if not l then return 'refused', ms(r.lease), nil end
    end
    l.granted = l.granted + units
    if c.kind == 'bucket' then c.level = c.level - units end
    return 'granted', units < need and ms(wait_for(c, r, math.min(need - units, least))) or 0, l
end

local function find(c, id)
    for _, l in ipairs(c.leases) do
        if l.id == id then return l end
    end
end

local function serve(c, r, op)
    advance(c, r)
    local status, retry, l = 'granted', 0, find(c, op.lease)
    local full, kind = false, op.kind
    if not l and op.kind == 'ask' and op.known == 0 and op.debt > 0 then
        l = add_lease(c, op.lease) -- to hold the debt, if nothing else
        full = not l
    end
    local gone = (not l and (op.kind ~= 'ask' or op.known > 0)) or (l and (l.over or op.known > l.granted))
    if full then
        status, retry = 'unavailable', ms(r.lease)
    elseif gone then
        status, l = 'ended', nil
    else
        -- then it takes nothing, and does not keep from the others what the lease holds
        if l and is_overtaken(l, op) then kind = 'settle' end
        if l then report(c, r, l, op) end
        if kind == 'ask' then status, retry, l = grant(c, r, l, op) end
        if l and (kind == 'ask' or kind == 'renew') then
            local us = r.lease
            if c.kind == 'fixed' then us = math.min(us, window_left(c)) end
            l.ends = math.max(l.ends, now + us)
        end
    end
    return { status, l and l.granted or 0, l and math.floor((l.ends - now) / 1000) or 0, left(c, r),
        ms(until_unused(c, r)), retry }
end

-- When the counter can be forgotten, since a new one would stand no higher.
local function keep_ms(c, r)
    local at = now + until_unused(c, r)
    for _, l in ipairs(c.leases) do at = math.max(at, l.ends + math.max(r.window, r.lease * ENDED_KEPT)) end
    if c.kind == 'bucket' then at = at + refill_time(r, outstanding(c)) end
    return ms(at - now) + 1000
end

-- --- what is stored: flat lists ---

local function load(text, r)
    local t = cmsgpack.unpack(text)
    local c = { kind = t.k, level = t.l, at = t.a, burst = t.b, used = t.u, aside = t.d, aside_for = t.f,
        first = t.w[1], last = t.w[2], ends = t.w[3], sure = t.y, leases = {}, spans = {} }
    for i = 1, #t.e, 7 do
        c.leases[#c.leases + 1] = { id = t.e[i], granted = t.e[i + 1], spent = t.e[i + 2],
            returned = t.e[i + 3], debt = t.e[i + 4], ends = t.e[i + 5], over = t.e[i + 6] == 1 }
    end
    for i = 1, #t.s, 3 do c.spans[#c.spans + 1] = { t.s[i], t.s[i + 1], t.s[i + 2] } end
    if c.kind ~= r.kind then return new_counter(r, false, now + r.lease) end
    return c
end

local function store(key, c, r, longer)
    local leases, spans = {}, {}
    for _, l in ipairs(c.leases) do
        for _, v in ipairs({ l.id, l.granted, l.spent, l.returned, l.debt, l.ends, l.over and 1 or 0 }) do
            leases[#leases + 1] = v
        end
    end
    for _, s in ipairs(c.spans) do
        for i = 1, 3 do spans[#spans + 1] = s[i] end
    end
    local text = cmsgpack.pack({ k = c.kind, l = c.level, a = c.at, b = c.burst, u = c.used, d = c.aside,
        f = c.aside_for, w = { c.first, c.last, c.ends }, y = c.sure, e = leases, s = spans })
    redis.call('SET', key, text, 'PX', string.format('%d', keep_ms(c, r) + longer))
end

-- A durable counter is there from its window's first op on, whatever the epoch. One that is not
-- there was never used, unless there was a loss or a doubt since the window began.
local lost_at, doubts, doubted_at = string.match(redis.call('GET', KEYS[2]) or '', '^(%d+) ?(%d*) ?(%d*)$')
lost_at, doubts, doubted_at = tonumber(lost_at or '0'), tonumber(doubts or '') or 0, tonumber(doubted_at or '') or 0

-- Whether what was used of the window has to be asked for elsewhere.
local function is_unsure(c, r)
    local began = now - (r.ends - r.begins - r.left)
    if not c then return math.max(lost_at, doubted_at) > 0 and math.max(lost_at, doubted_at) > began end
    return (c.sure or 0) ~= doubts and doubted_at > began and c.first < r.ends and r.begins < c.last
end

local DURABLE_MS = 2 * 86400000 -- kept for so much longer, should the clock of Redis step

local out = { 'ok', now }
for i = 3, #KEYS do
    local a = 7 + (i - 3) * 19
    local function number(k) return tonumber(ARGV[a + k]) end
    local r = { kind = ARGV[a], limit = number(1), burst = number(2), window = number(3), lease = number(4),
        aside = number(5), begins = number(6), ends = number(7), left = number(8) }
    local op = { kind = ARGV[a + 9], lease = ARGV[a + 10], known = number(11), want = number(12),
        ahead = number(13), min = number(14), spent = number(15), returned = number(16), debt = number(17) }
    local result
    if not same_epoch and not (op.kind == 'ask' and op.known == 0) then
        result = { 'stale_epoch', 0, 0, 0, 0, 0 }
    elseif warming then
        result = { 'warming', 0, 0, 0, 0, ms(empty_at - now) }
    else
        local text, durable = redis.call('GET', KEYS[i]), ARGV[a + 18] == '1'
        local c = text and load(text, r)
        if durable and is_unsure(c, r) then
            result = { 'lost', 0, 0, 0, 0, RETRY_LOST_MS }
        else
            c = c or new_counter(r, durable or first == '1', empty_at)
            if durable then c.sure = doubts end
            result = serve(c, r, op)
            store(KEYS[i], c, r, durable and DURABLE_MS or 0)
        end
    end
    for _, v in ipairs(result) do out[#out + 1] = v end
end
return out
