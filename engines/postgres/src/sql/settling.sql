-- Settling, extending, consuming, and the commit.

-- Settles deliveries, all or none; they are named in the order of their ids. Verdicts: 0 done,
-- 1 again after a delay, 2 never again.
create function {schema}.settle_all(
    ids bigint[], tokens bigint[], sessions bigint[], verdicts smallint[], delays bigint[],
    from_home bigint
) returns void language plpgsql as $$
declare
    m {schema}.messages;
    q {schema}.queues;
    acked bigint[] := '{}';
    acked_bytes bigint[] := '{}';
    t bigint := {schema}.now_us();
begin
    for i in 1 .. coalesce(array_length(ids, 1), 0) loop
        select * into m from {schema}.messages x where x.id = ids[i] for update;
        if not found or m.state <> 2 or m.token <> tokens[i] or m.at <= t then
            perform {schema}.refuse('stale', 'delivery ' || tokens[i]
                || ' is not open: it was settled, or its lease or its session ended');
        elsif m.session <> sessions[i] then
            perform {schema}.refuse('foreign',
                'delivery ' || tokens[i] || ' belongs to another session');
        end if;
        if verdicts[i] = 0 then
            delete from {schema}.messages x where x.id = m.id;
            acked := acked || m.queue;
            acked_bytes := acked_bytes || length(m.body)::bigint;
            perform {schema}.free_key(m.queue, m.key);
        elsif verdicts[i] = 1 then
            perform {schema}.fail(m, delays[i]);
        else
            select * into q from {schema}.queues x where x.id = m.queue;
            perform {schema}.die(m, q, 'rejected');
        end if;
        if m.consumer is not null and m.home <> from_home then
            -- Its consumer is elsewhere and has room again.
            perform pg_notify('{channel}', 'c' || m.consumer);
        end if;
    end loop;
    perform {schema}.tally(x.queue, -count(*), -sum(x.bytes)::bigint, acked_by => count(*))
    from unnest(acked, acked_bytes) x(queue, bytes) group by x.queue;
end $$;

create function {schema}.settle(
    request bytea, ids bigint[], tokens bigint[], sessions bigint[], verdicts smallint[],
    delays bigint[], from_home bigint
) returns void language plpgsql as $$
begin
    if {schema}.begin_request(request) is null then
        perform {schema}.settle_all(ids, tokens, sessions, verdicts, delays, from_home);
    end if;
end $$;

-- Acknowledges deliveries for several requests; each is done or refused by itself. No delivery is
-- named twice.
create function {schema}.ack(
    requests bytea[], of_request integer[], ids bigint[], tokens bigint[], sessions bigint[],
    from_home bigint
) returns table (refusal text, wrong text) language plpgsql as $$
declare
    t bigint := {schema}.now_us();
    n integer := cardinality(requests);
    begun bigint[];
    refusals text[];
    wrongs text[];
    gone record;
    acked bigint[] := '{}';
    acked_bytes bigint[] := '{}';
    keyed bigint[] := '{}';
    keys bytea[] := '{}';
begin
    with new as (
        insert into {schema}.requests (id, until)
        select x.id, t + 120000000 from unnest(requests) with ordinality x(id, i) order by x.i
        on conflict (id) do nothing returning id
    )
    select array_agg(x.i) into begun
    from unnest(requests) with ordinality x(id, i) join new on new.id = x.id;
    perform from {schema}.messages x where x.id = any (ids) order by x.id for update;
    t := {schema}.now_us();
    -- The first that is wrong with a request that is new.
    select array_agg(w.kind order by r.i), array_agg(w.token::text order by r.i)
        into refusals, wrongs
    from generate_series(1, n) r(i) left join lateral (
        select d.token, d.kind from (
            select x.token, x.place, case when m.id is null or m.state <> 2
                or m.token <> x.token or m.at <= t then 'stale'
                when m.session <> x.session then 'foreign' end as kind
            from unnest(ids, tokens, sessions, of_request) with ordinality
                x(id, token, session, of_, place)
            left join {schema}.messages m on m.id = x.id
            where x.of_ = r.i and r.i = any (begun)
        ) d where d.kind is not null order by d.place limit 1
    ) w on true;
    for gone in delete from {schema}.messages x where x.id in (
            select y.id from unnest(ids, of_request) y(id, of_)
            where y.of_ = any (begun) and refusals[y.of_] is null
        ) returning x.queue, x.key, length(x.body)::bigint as bytes, x.consumer, x.home
    loop
        acked := acked || gone.queue;
        acked_bytes := acked_bytes || gone.bytes;
        if gone.key is not null then
            keyed := keyed || gone.queue;
            keys := keys || gone.key;
        end if;
        if gone.consumer is not null and gone.home <> from_home then
            -- Its consumer is elsewhere and has room again.
            perform pg_notify('{channel}', 'c' || gone.consumer);
        end if;
    end loop;
    perform {schema}.free_key(x.queue, x.key) from (
        select y.queue, y.key from unnest(keyed, keys) y(queue, key)
        order by {schema}.lock_key(y.queue, y.key)
    ) x;
    perform {schema}.tally(x.queue, -count(*), -sum(x.bytes)::bigint, acked_by => count(*))
    from unnest(acked, acked_bytes) x(queue, bytes) group by x.queue;
    delete from {schema}.requests r where r.id in (
        select requests[x.i] from generate_series(1, n) x(i) where refusals[x.i] is not null);
    return query select refusals[x.i], 'delivery ' || wrongs[x.i] || case refusals[x.i]
            when 'foreign' then ' belongs to another session'
            else ' is not open: it was settled, or its lease or its session ended' end
        from generate_series(1, n) x(i) order by x.i;
end $$;

create function {schema}.extend(of_id bigint, of_token bigint, of_session bigint, lease bigint)
returns void language plpgsql as $$
declare
    m {schema}.messages;
    t bigint := {schema}.now_us();
begin
    select * into m from {schema}.messages x where x.id = of_id for update;
    if not found or m.state <> 2 or m.token <> of_token or m.at <= t then
        perform {schema}.refuse('stale', 'delivery ' || of_token
            || ' is not open: it was settled, or its lease or its session ended');
    elsif m.session <> of_session then
        perform {schema}.refuse('foreign',
            'delivery ' || of_token || ' belongs to another session');
    end if;
    update {schema}.messages x set at = t + lease where x.id = of_id;
end $$;

create function {schema}.consume(
    from_queue text, by_handle bigint, for_session bigint, session_ttl bigint, prefetch_ integer,
    exclusive_ boolean, label_ text
) returns bigint language plpgsql as $$
declare
    q {schema}.queues;
    next bigint := {schema}.tend();
begin
    perform pg_advisory_xact_lock_shared({schema}.lock_of('queue', from_queue));
    q := {schema}.queue_named(from_queue);
    perform pg_advisory_xact_lock({schema}.lock_of('consumers', q.id::text));
    if exists (select from {schema}.consumers x where x.handle = by_handle) then
        return q.id;
    end if;
    if exists (select from {schema}.consumers x
        where x.queue = q.id and (x.exclusive or exclusive_))
    then
        perform {schema}.refuse('in-use',
            'queue ' || q.name || ' has a consumer, and one of the two wants it for itself');
    end if;
    insert into {schema}.owners values (for_session, {schema}.now_us() + session_ttl)
    on conflict (session) do nothing;
    if found and session_ttl is not null then
        perform {schema}.tell_time(session_ttl);
    end if;
    insert into {schema}.consumers (handle, queue, session, prefetch, exclusive, label)
    values (by_handle, q.id, for_session, prefetch_, exclusive_, label_);
    return q.id;
end $$;

-- A consumer stops; what it had not handed out goes back, as far as it is still its own.
create function {schema}.stop(by_handle bigint, ids bigint[], tokens bigint[]) returns void
language plpgsql as $$
declare
    c {schema}.consumers;
    m {schema}.messages;
begin
    for m in select x.* from {schema}.messages x
        join unnest(ids, tokens) g(id, token) on g.id = x.id and g.token = x.token
        where x.state = 2 order by x.id for update of x
    loop
        update {schema}.messages x set state = 0, at = null, session = null, consumer = null,
            call = null, home = null where x.id = m.id;
        perform {schema}.free_key(m.queue, m.key);
        perform {schema}.ring(m.queue);
    end loop;
    select * into c from {schema}.consumers x where x.handle = by_handle;
    if found then
        perform {schema}.drop_consumer(c);
    end if;
end $$;

-- A receive whose answer nobody waits for: what it took goes back.
create function {schema}.give_back(for_session bigint, this_call bytea) returns void
language plpgsql as $$
declare
    m {schema}.messages;
begin
    perform pg_advisory_xact_lock({schema}.lock_of('call', encode(this_call, 'hex')));
    insert into {schema}.requests (id, until) values (this_call, {schema}.now_us() + 120000000)
    on conflict (id) do nothing;
    for m in select * from {schema}.messages x
        where x.session = for_session and x.state = 2 and x.call = this_call
        order by x.id for update
    loop
        update {schema}.messages x set state = 0, at = null, session = null, consumer = null,
            call = null, home = null where x.id = m.id;
        perform {schema}.free_key(m.queue, m.key);
        perform {schema}.ring(m.queue);
    end loop;
end $$;

-- Deliveries that wait to be handed out, by somebody who hands out, get their lease anew.
create function {schema}.stay(ids bigint[], tokens bigint[], lease bigint) returns void
language plpgsql as $$
declare
    t bigint := {schema}.now_us();
    one bigint;
begin
    for one in select x.id from {schema}.messages x
        join unnest(ids, tokens) g(id, token) on g.id = x.id and g.token = x.token
        where x.state = 2 and x.at > t order by x.id for update of x
    loop
        update {schema}.messages x set at = t + lease where x.id = one;
    end loop;
end $$;

-- A session shows that it lives.
create function {schema}.keep(of_session bigint, ttl bigint) returns void language sql as $$
    update {schema}.owners set until = {schema}.now_us() + ttl where session = of_session;
$$;

-- Everything at once or nothing: compares entries, settles, publishes, writes entries. Gives one
-- row with `done` and the version, or how the entries are when they are not as expected, or when
-- the time has come at which one of the holds that were looked at ends.
create function {schema}.commit(
    request bytea,
    spaces smallint[], names bytea[], expects bigint[], acts smallint[], vals bytea[],
    lasts bigint[], in_time bigint,
    ids bigint[], id_tokens bigint[], sessions bigint[], verdicts smallint[],
    settle_delays bigint[],
    from_home bigint,
    through text[], keys text[], mandatory boolean[], bodies bytea[], levels smallint[],
    okeys bytea[], mids bytea[], ttls bigint[], delays bigint[], dues bigint[], headers bytea[],
    token_of integer[], tokens bytea[]
) returns table (
    version bigint, written bigint, value bytea, moment bigint, done boolean
) language plpgsql as $$
declare
    known text;
    fresh bigint;
    at_us bigint;
    p {schema}.published;
begin
    perform {schema}.lock_entries(spaces, names);
    select r.answer into known from {schema}.requests r where r.id = request;
    if not found then
        if not {schema}.are_as_expected(spaces, names, expects)
            or {schema}.now_us() >= in_time
        then
            return query select l.version, l.written, l.value, l.moment, false
                from {schema}.look(spaces, names) l;
            return;
        end if;
        known := {schema}.begin_request(request);
    end if;
    if known is not null then
        if known !~ '^commit [0-9]+ [0-9]+$' then
            perform {schema}.refuse('spent', 'the request id was used for another request');
        end if;
        fresh := split_part(known, ' ', 2)::bigint;
        at_us := split_part(known, ' ', 3)::bigint;
        return query select fresh, at_us, null::bytea, at_us, true;
        return;
    end if;
    perform {schema}.settle_all(ids, id_tokens, sessions, verdicts, settle_delays, from_home);
    for i in 1 .. coalesce(array_length(bodies, 1), 0) loop
        p := {schema}.publish_one(through[i], keys[i], mandatory[i], bodies[i], levels[i],
            okeys[i], mids[i], ttls[i], delays[i], dues[i], headers[i],
            coalesce((select array_agg(x.token) from unnest(token_of, tokens) x(of_, token)
                where x.of_ = i), '{}'));
        if p.refusal is not null then
            perform {schema}.refuse(p.refusal, p.wrong);
        end if;
    end loop;
    fresh := nextval('{schema}.versions');
    at_us := {schema}.now_us();
    perform {schema}.write_entries(spaces, names, acts, vals, lasts, fresh, at_us);
    perform {schema}.end_request(request, 'commit ' || fresh || ' ' || at_us);
    return query select fresh, at_us, null::bytea, at_us, true;
end $$;
