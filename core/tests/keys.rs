//! Keys through `Core`: what decisions stage, what comes of it, and the keys that are locks. Every
//! test ends with the laws: replay, and a checkpoint with what came after it, lead to the same
//! state.

mod support;

use leasehold_core::content::{Bytes, Content, Edit, Kind, Sorted};
use leasehold_core::limits::{MS, SECOND};
use leasehold_core::*;

use support::{Answer, Shard, bytes, decide, name};

fn shard() -> Shard {
    let mut shard = Shard::new(Limits::default());
    // The first token reserves a block; no test should see that record.
    decide(&mut shard, |keys| keys.set(b"first", b"".as_slice().into())).expect("room");
    shard
}

fn set(shard: &mut Shard, key: &str, text: &str) {
    decide(shard, |keys| keys.set(key.as_bytes(), bytes(text))).expect("it may be written");
}

fn edit(shard: &mut Shard, key: &str, edits: &[Edit]) {
    decide(shard, |keys| keys.edits(key.as_bytes(), edits)).expect("it may be edited");
}

fn remove(shard: &mut Shard, key: &str) -> bool {
    decide(shard, |keys| keys.remove(key.as_bytes())).expect("it may be removed")
}

fn content(shard: &mut Shard, key: &str) -> Option<Content> {
    decide(shard, |keys| keys.get(key.as_bytes()).map(|seen| seen.content.clone()))
}

fn text(shard: &mut Shard, key: &str) -> Option<String> {
    let content = content(shard, key)?;
    Some(String::from_utf8(content.text().expect("a text").to_vec()).expect("UTF-8"))
}

/// SET NX PX: the token, if it was not there.
fn take(shard: &mut Shard, key: &str, text: &str, ttl: Time) -> Option<Token> {
    decide(shard, |keys| {
        let expires = keys.now() + ttl;
        if !keys.expect_absent(key.as_bytes()) {
            return false;
        }
        keys.set(key.as_bytes(), bytes(text)).expect("it was found absent");
        keys.expire(key.as_bytes(), Some(expires)).expect("it is there")
    })
    .then(|| claim(shard, key).expect("made and found absent: claimed"))
}

fn claim(shard: &Shard, key: &str) -> Option<Token> {
    let state = shard.core.state();
    let register = &state.registers()[state.register_at(key.as_bytes())?];
    (register.claim != 0).then_some(Token(register.claim))
}

fn after(shard: &mut Shard, time: Time) {
    shard.log.now += time;
    while !shard.tick() {}
}

fn acquire(lock: &str, wait: Wait) -> Op {
    Op::Acquire(Box::new(Acquire {
        wants: Wants::One(name(lock), Mode::Exclusive),
        hold: 1,
        reentrant: false,
        tenure: Tenure { ttl_us: Some(10 * SECOND), session: false },
        wait,
        lock_delay_us: 0,
        label: Some("a lease".into()),
    }))
}

fn write(key: &str, value: Option<&str>) -> Op {
    Op::Write(Box::new(Write {
        key: bytes(key),
        value: value.map(bytes),
        expect: Expect::Anything,
        ttl: RegisterTtl::Never,
        guard: None,
    }))
}

fn ask(shard: &mut Shard, op: Op) -> Answer {
    shard.ask(SessionId::NONE, op)
}

/// What was answered to a ticket by now.
fn answer(shard: &Shard, ticket: Ticket) -> Option<Answer> {
    shard.said.iter().find_map(|kind| match kind {
        EffectKind::Reply(to, answer) if *to == ticket => Some(answer.clone()),
        _ => None,
    })
}

fn view(shard: &mut Shard, lock: &str) -> outcome::LockView {
    match ask(shard, Op::InspectLock(name(lock))) {
        Ok(Outcome::Lock(view)) => *view,
        other => panic!("inspect gave {other:?}"),
    }
}

fn done(mut shard: Shard) {
    shard.laws();
    let here = shard.core.state().all_cells();
    shard.checkpoint(true, usize::MAX);
    shard.laws();
    let cells = shard.cells.iter().map(|(key, value)| (&key[..], &value[..]));
    let restored = Durable::restore(cells, 4).expect("cells fit").expect("a state");
    assert_eq!(restored.all_cells(), here, "a checkpoint alone is the state");
    shard.restart();
    shard.laws();
}

#[test]
fn a_decision_sees_its_own_changes_and_what_is_abandoned_leaves_no_trace() {
    let mut shard = shard();
    set(&mut shard, "a", "old");
    edit(&mut shard, "h", &[Edit::Put(bytes("f"), bytes("1"))]);
    let (before, records) = (shard.core.state().all_cells(), shard.log.records.len());
    decide(&mut shard, |keys| {
        let text = |keys: &Keys<'_, '_>, key: &[u8]| {
            keys.get(key).map(|seen| seen.content.text().expect("a text").to_vec())
        };
        assert_eq!(text(keys, b"a"), Some(b"old".to_vec()));
        keys.set(b"a", bytes("new")).unwrap();
        assert_eq!(text(keys, b"a"), Some(b"new".to_vec()));
        assert!(keys.remove(b"a").unwrap());
        assert_eq!(text(keys, b"a"), None);
        assert!(!keys.remove(b"a").unwrap(), "it is gone already");
        assert!(!keys.expire(b"a", Some(keys.now() + 5)).unwrap());
        keys.set(b"b", bytes("made")).unwrap();
        assert!(keys.expire(b"b", Some(keys.now() + 5)).unwrap());
        assert_eq!(keys.get(b"b").and_then(|seen| seen.expires), Some(keys.now() + 5));
        assert_eq!(keys.get(b"b").map(|seen| seen.version), Some(0), "it has none yet");
        keys.edit(b"h", Edit::Put(bytes("f"), bytes("2"))).unwrap();
        let changed: Vec<&[u8]> = keys.changed().map(|key| &key[..]).collect();
        assert_eq!(changed, [&b"a"[..], b"b", b"h"]);
        keys.abandon();
        assert_eq!(text(keys, b"a"), Some(b"old".to_vec()));
        assert_eq!(text(keys, b"b"), None);
        assert_eq!(keys.changed().count(), 0);
    });
    assert_eq!(shard.log.records.len(), records, "nothing was recorded");
    assert_eq!(shard.core.state().all_cells(), before);
    done(shard);
}

#[test]
fn a_decision_is_one_group_of_events_and_as_small_as_what_it_changed() {
    let mut shard = shard();
    let many: Vec<Edit> =
        (0..1000).map(|i| Edit::Put(bytes(&format!("f{i}")), bytes("v"))).collect();
    edit(&mut shard, "h", &many);
    set(&mut shard, "gone", "x");
    let (groups, records) = (shard.log.groups.len(), shard.log.records.len());
    decide(&mut shard, |keys| {
        keys.edit(b"h", Edit::Put(bytes("f7"), bytes("w"))).unwrap();
        keys.set(b"a", bytes("1")).unwrap();
        keys.remove(b"gone").unwrap();
        keys.set(b"passing", bytes("1")).unwrap();
        keys.remove(b"passing").unwrap();
        keys.get(b"looked-at");
        assert!(keys.expect_absent(b"looked-for"));
    });
    assert_eq!(shard.log.groups[groups..], [records], "one group, begun before the first");
    let recorded: Vec<Event<'_>> = shard.log.records[records..]
        .iter()
        .map(|(_, bytes)| Event::decode(bytes).expect("an event decodes"))
        .collect();
    let [Event::Keyed { fresh: None, .. }, Event::Keyed { fresh: Some(_), .. }, last] =
        &recorded[..]
    else {
        panic!("two changes and a removal, and nothing of what passed: {recorded:?}")
    };
    assert!(matches!(last, Event::Unwritten { .. }));
    assert!(shard.log.records[records].1.len() < 40, "one field of a thousand is a small record");
    done(shard);
}

#[test]
fn many_keys_of_one_decision_are_told_apart() {
    let mut shard = shard();
    decide(&mut shard, |keys| {
        for i in 0..100 {
            keys.set(format!("k{}", i % 50).as_bytes(), bytes(&i.to_string())).unwrap();
        }
        assert_eq!(keys.changed().count(), 50);
        let seen = keys.get(b"k49").map(|seen| seen.content.clone());
        assert_eq!(seen, Some(Content::Text(bytes("99"))));
    });
    assert_eq!(text(&mut shard, "k3").as_deref(), Some("53"));
    done(shard);
}

#[test]
fn every_edit_does_what_it_says_in_a_decision_and_in_the_journal() {
    let mut shard = shard();
    let put = |field, value| Edit::Put(bytes(field), bytes(value));
    edit(&mut shard, "hash", &[put("b", "2"), put("a", "1"), put("c", "3")]);
    edit(&mut shard, "hash", &[put("a", "one"), Edit::Drop(bytes("b")), Edit::Drop(bytes("x"))]);
    let Some(Content::Hash(fields)) = content(&mut shard, "hash") else { panic!("a hash") };
    let fields: Vec<_> = fields.iter().cloned().collect();
    assert_eq!(fields, [(bytes("a"), bytes("one")), (bytes("c"), bytes("3"))], "in their order");

    let insert = |place, item| Edit::Insert(place, bytes(item));
    edit(&mut shard, "list", &[insert(0, "b"), insert(0, "a"), insert(2, "d"), insert(2, "c")]);
    edit(&mut shard, "list", &[Edit::Replace(1, bytes("B")), Edit::Remove(2, 2), insert(2, "e")]);
    let Some(Content::List(items)) = content(&mut shard, "list") else { panic!("a list") };
    let items: Vec<_> = items.iter().cloned().collect();
    assert_eq!(items, [bytes("a"), bytes("B"), bytes("e")]);

    let add = |member| Edit::Add(bytes(member));
    edit(&mut shard, "set", &[add("y"), add("x"), add("x"), add("z")]);
    edit(&mut shard, "set", &[Edit::Take(bytes("y")), Edit::Take(bytes("nobody"))]);
    let Some(Content::Set(members)) = content(&mut shard, "set") else { panic!("a set") };
    let members: Vec<_> = members.iter().cloned().collect();
    assert_eq!(members, [bytes("x"), bytes("z")]);

    let score = |member, score| Edit::Score(bytes(member), score);
    edit(&mut shard, "sorted", &[score("a", 3.5), score("b", -1.0), score("c", f64::INFINITY)]);
    edit(&mut shard, "sorted", &[score("b", 9.0), score("d", 3.5), Edit::Unscore(bytes("c"))]);
    let Some(Content::Sorted(sorted)) = content(&mut shard, "sorted") else { panic!("sorted") };
    let ranks: Vec<_> = sorted.ranks().iter().cloned().collect();
    assert_eq!(ranks, [(bytes("a"), 3.5), (bytes("d"), 3.5), (bytes("b"), 9.0)]);
    assert_eq!((sorted.score(b"b"), sorted.rank(b"d")), (Some(9.0), Some(1)));

    edit(&mut shard, "text", &[Edit::Text(bytes("one")), Edit::Text(bytes("two"))]);
    assert_eq!(text(&mut shard, "text").as_deref(), Some("two"));
    let whole = content(&mut shard, "sorted").expect("it is there");
    decide(&mut shard, |keys| keys.put(b"copy", whole.clone())).unwrap();
    assert_eq!(content(&mut shard, "copy"), Some(whole), "put takes any content");
    done(shard);
}

#[test]
fn a_collection_that_gets_empty_vanishes_and_so_does_its_expiry() {
    let mut shard = shard();
    let cases = [
        (Edit::Put(bytes("f"), bytes("v")), Edit::Drop(bytes("f"))),
        (Edit::Insert(0, bytes("i")), Edit::Remove(0, 1)),
        (Edit::Add(bytes("m")), Edit::Take(bytes("m"))),
        (Edit::Score(bytes("m"), 1.0), Edit::Unscore(bytes("m"))),
    ];
    for (fill, empty) in cases {
        let there = shard.core.state().registers().len();
        edit(&mut shard, "k", std::slice::from_ref(&fill));
        let later = shard.log.now + SECOND;
        assert!(decide(&mut shard, |keys| keys.expire(b"k", Some(later))).unwrap());
        edit(&mut shard, "k", std::slice::from_ref(&empty));
        assert_eq!(content(&mut shard, "k"), None);
        assert_eq!(shard.core.state().registers().len(), there, "the key went with its content");
        // Emptied and filled again in one decision: it is another key, which does not expire.
        edit(&mut shard, "k", std::slice::from_ref(&fill));
        decide(&mut shard, |keys| keys.expire(b"k", Some(later))).unwrap();
        edit(&mut shard, "k", &[empty, fill]);
        let expires = decide(&mut shard, |keys| keys.get(b"k").expect("filled").expires);
        assert_eq!(expires, None);
        remove(&mut shard, "k");
    }
    decide(&mut shard, |keys| keys.put(b"k", Content::Sorted(Sorted::default()))).unwrap();
    assert_eq!(content(&mut shard, "k"), None, "nothing is as good as no key");
    done(shard);
}

#[test]
fn a_key_is_gone_from_the_microsecond_of_its_expiry() {
    let mut shard = shard();
    edit(&mut shard, "h", &[Edit::Put(bytes("f"), bytes("v"))]);
    let due = shard.log.now + 1500;
    assert!(decide(&mut shard, |keys| keys.expire(b"h", Some(due))).unwrap());
    shard.log.now = due - 1;
    assert!(content(&mut shard, "h").is_some());
    shard.log.now = due;
    assert!(content(&mut shard, "h").is_none(), "although no timer has fired");
    assert!(!remove(&mut shard, "h"));
    // What is made in its place is another key.
    edit(&mut shard, "h", &[Edit::Add(bytes("m"))]);
    assert_eq!(content(&mut shard, "h").map(|content| content.kind()), Some(Kind::Set));
    after(&mut shard, SECOND);
    assert!(content(&mut shard, "h").is_some(), "the old expiry is not its own");
    let now = shard.log.now;
    assert!(decide(&mut shard, |keys| keys.expire(b"h", Some(now))).unwrap(), "over is removed");
    assert!(content(&mut shard, "h").is_none());

    set(&mut shard, "t", "v");
    decide(&mut shard, |keys| keys.expire(b"t", Some(now + SECOND))).unwrap();
    decide(&mut shard, |keys| keys.expire(b"t", None)).unwrap();
    after(&mut shard, 2 * SECOND);
    assert_eq!(text(&mut shard, "t").as_deref(), Some("v"), "persisted");
    let there = shard.core.state().registers().len();
    let due = shard.log.now + 1;
    decide(&mut shard, |keys| keys.expire(b"t", Some(due))).unwrap();
    after(&mut shard, 2 * MS);
    assert_eq!(shard.core.state().registers().len(), there - 1, "the timer takes it away");
    done(shard);
}

#[test]
fn a_claim_is_a_key_found_absent_and_made_to_expire_or_made_to_be_one() {
    let mut shard = shard();
    let first = take(&mut shard, "lock", "me", SECOND).expect("it was free");
    assert_eq!(take(&mut shard, "lock", "you", SECOND), None, "it is taken");
    decide(&mut shard, |keys| {
        assert!(keys.expect_absent(b"nx"));
        keys.set(b"nx", bytes("me")).unwrap();
        keys.claim(b"nx");
    });
    assert!(claim(&shard, "nx") > Some(first), "SETNX claims without an expiry; tokens rise");

    // None of these is taking a lock.
    set(&mut shard, "plain", "v");
    let later = shard.log.now + SECOND;
    decide(&mut shard, |keys| keys.expire(b"plain", Some(later))).unwrap();
    assert_eq!(claim(&shard, "plain"), None, "nobody had looked");
    decide(&mut shard, |keys| {
        assert!(keys.expect_absent(b"cache"));
        keys.set(b"cache", bytes("v")).unwrap();
    });
    assert_eq!(claim(&shard, "cache"), None, "found absent and made, but for ever");
    assert!(decide(&mut shard, |keys| keys.expect_absent(b"later")));
    set(&mut shard, "later", "v");
    decide(&mut shard, |keys| keys.expire(b"later", Some(later))).unwrap();
    assert_eq!(claim(&shard, "later"), None, "looking was another decision");

    // Who holds it: the same text is the same holder, another text is another one.
    set(&mut shard, "nx", "me");
    let token = claim(&shard, "nx").expect("still a claim");
    set(&mut shard, "nx", "me");
    assert_eq!(claim(&shard, "nx"), Some(token), "the same text keeps the token");
    decide(&mut shard, |keys| keys.expire(b"nx", Some(later))).unwrap();
    assert_eq!(claim(&shard, "nx"), Some(token), "and so does a new expiry");
    set(&mut shard, "nx", "you");
    assert!(claim(&shard, "nx") > Some(token), "another text is another holder");
    let field = Edit::Put(bytes("client:1"), bytes("1"));
    decide(&mut shard, |keys| {
        assert!(keys.expect_absent(b"redisson"));
        keys.edit(b"redisson", field.clone()).unwrap();
        keys.expire(b"redisson", Some(later)).unwrap();
    });
    let token = claim(&shard, "redisson").expect("a hash can be a lock");
    edit(&mut shard, "redisson", &[Edit::Put(bytes("client:1"), bytes("2"))]);
    assert_eq!(claim(&shard, "redisson"), Some(token), "entering again keeps the token");
    assert_eq!(view(&mut shard, "redisson").holders[0].label.as_deref(), Some("client:1"));
    assert!(remove(&mut shard, "lock"));
    decide(&mut shard, |keys| {
        keys.remove(b"nx")?;
        keys.set(b"nx", bytes("you"))
    })
    .unwrap();
    assert_eq!(claim(&shard, "nx"), None, "removed and made in one decision: it was given back");
    assert!(take(&mut shard, "lock", "me", SECOND) > Some(first), "a new claim, a new token");
    done(shard);
}

/// Puts a text where none is, as the holder of a lock: SET NX.
fn nx(shard: &mut Shard, key: &str, text: &str) -> bool {
    decide(shard, |keys| {
        let free = keys.expect_free(key.as_bytes());
        if free {
            keys.set(key.as_bytes(), bytes(text)).expect("there is room");
            keys.claim(key.as_bytes());
        }
        free
    })
}

#[test]
fn locks_taken_and_given_back_as_keys_are_counted() {
    let mut shard = shard();
    let counts = |refused, made, released| ClaimCounts { refused, made, released };
    set(&mut shard, "plain", "v");
    assert!(!nx(&mut shard, "plain", "me"));
    assert!(remove(&mut shard, "plain"));
    assert_eq!(shard.core.claim_counts(), counts(0, 0, 0), "a key that nobody claimed is no lock");

    assert!(nx(&mut shard, "a", "me"));
    assert!(!nx(&mut shard, "a", "you"));
    assert_eq!(shard.core.claim_counts(), counts(1, 1, 0));
    set(&mut shard, "a", "me");
    assert_eq!(shard.core.claim_counts(), counts(1, 1, 0), "the same holder");
    set(&mut shard, "a", "you");
    assert_eq!(shard.core.claim_counts(), counts(1, 2, 1), "passed on");
    assert!(remove(&mut shard, "a"));
    assert_eq!(shard.core.claim_counts(), counts(1, 2, 2));

    take(&mut shard, "b", "me", SECOND).expect("it is free");
    after(&mut shard, 2 * SECOND);
    assert_eq!(shard.core.claim_counts(), counts(1, 3, 2), "it ran out: nobody gave it back");
    take(&mut shard, "b", "me", SECOND).expect("it is free");
    assert_eq!(ask(&mut shard, Op::ForceRelease(name("b"))), Ok(Outcome::Forced(1)));
    assert_eq!(shard.core.claim_counts(), counts(1, 4, 2), "taken away");
    ask(&mut shard, acquire("c", Wait::No)).expect("it is free");
    assert!(!nx(&mut shard, "c", "me"));
    assert_eq!(shard.core.claim_counts(), counts(2, 4, 2), "a lease is in the way");
    done(shard);
}

#[test]
fn a_lease_keeps_keys_of_its_name_away_and_so_does_its_lock_delay() {
    let mut shard = shard();
    let Op::Acquire(mut lease) = acquire("job", Wait::No) else { unreachable!() };
    lease.lock_delay_us = SECOND;
    let Ok(Outcome::Granted { token, .. }) = ask(&mut shard, Op::Acquire(lease)) else {
        panic!("it was free")
    };
    let busy = |holder, left| Refusal::Busy { name: name("job"), holder, left_us: Some(left) };
    decide(&mut shard, |keys| {
        assert_eq!(keys.leased(b"job").map(|lease| lease.token), Some(token));
        assert!(!keys.expect_absent(b"job"));
        let refused = busy(Some(token), 10 * SECOND);
        assert_eq!(keys.set(b"job", bytes("v")), Err(refused.clone()));
        assert_eq!(keys.edit(b"job", Edit::Add(bytes("v"))), Err(refused.clone()));
        assert_eq!(keys.remove(b"job"), Err(refused.clone()));
        assert_eq!(keys.expire(b"job", Some(keys.now() + 5)), Err(refused));
        keys.set(b"other", bytes("v")).unwrap();
    });
    after(&mut shard, 10 * SECOND);
    after(&mut shard, 2 * MS);
    let left = view(&mut shard, "job").delay_left_us;
    assert!(left > 0, "its holder may not know yet");
    assert_eq!(take(&mut shard, "job", "me", SECOND), None);
    let refused = decide(&mut shard, |keys| keys.set(b"job", bytes("me")));
    assert_eq!(refused, Err(busy(None, left)));
    after(&mut shard, SECOND);
    assert!(take(&mut shard, "job", "me", SECOND).is_some());
    done(shard);
}

#[test]
fn whoever_waits_for_a_claimed_name_is_let_in_when_the_claim_ends() {
    type End = fn(&mut Shard);
    let ends: [(&str, End); 8] = [
        ("deleted", |shard| assert!(remove(shard, "job"))),
        ("expired", |shard| after(shard, SECOND + 2 * MS)),
        ("a register deleted", |shard| {
            ask(shard, write("job", None)).expect("written");
        }),
        ("a register overwritten", |shard| {
            ask(shard, write("job", Some("plain"))).expect("written");
        }),
        ("forced", |shard| {
            let forced = ask(shard, Op::ForceRelease(name("job")));
            assert_eq!(forced, Ok(Outcome::Forced(1)));
        }),
        ("tried for before its timer fired", |shard| {
            shard.log.now += SECOND;
            assert_eq!(take(shard, "job", "you", SECOND), None, "nobody passes");
            let refused = decide(shard, |keys| keys.set(b"job", bytes("plain")));
            assert!(matches!(refused, Err(Refusal::Busy { .. })), "{refused:?}");
            after(shard, 2 * MS);
        }),
        ("emptied with its space", |shard| decide(shard, |keys| keys.empty(0))),
        ("an empty hash", |shard| {
            decide(shard, |keys| keys.put(b"job", Content::empty(Kind::Hash))).unwrap();
        }),
    ];
    for (how, end) in ends {
        let mut shard = shard();
        let token = take(&mut shard, "job", "me", SECOND).expect("it was free");
        let refused = ask(&mut shard, acquire("job", Wait::No));
        let (lock, holder) = (name("job"), Some(token));
        let busy = Refusal::Busy { name: lock, holder, left_us: Some(SECOND) };
        assert_eq!(refused, Err(busy), "{how}");
        let waiting = shard.send(SessionId::NONE, None, acquire("job", Wait::AtMost(60 * SECOND)));
        assert_eq!(answer(&shard, waiting), None, "{how}: it waits");
        end(&mut shard);
        let Some(Ok(Outcome::Granted { token: next, .. })) = answer(&shard, waiting) else {
            panic!("{how}: whoever waited has it: {:?}", answer(&shard, waiting))
        };
        assert!(next > token, "{how}");
        done(shard);
    }
}

#[test]
fn a_claim_is_shown_listed_checked_and_forced_like_a_lock() {
    let mut shard = shard();
    let token = take(&mut shard, "nightly", "worker 7", 60 * SECOND).expect("free");
    after(&mut shard, 5 * SECOND);
    let seen = view(&mut shard, "nightly");
    let holder = outcome::HolderView {
        token,
        session: SessionId::NONE,
        hold: 0,
        mode: Mode::Exclusive,
        held_us: 5 * SECOND,
        left_us: Some(55 * SECOND),
        entries: 1,
        label: Some("worker 7".into()),
    };
    assert_eq!((seen.holders, seen.holding), (vec![holder], 1));
    let check = |shard: &mut Shard, token| ask(shard, Op::Check(name("nightly"), token));
    assert_eq!(check(&mut shard, token), Ok(Outcome::Held(true)));
    assert_eq!(check(&mut shard, Token(token.0 - 1)), Ok(Outcome::Held(false)));
    let guarded = |token| {
        Op::Write(Box::new(Write {
            key: bytes("result"),
            value: Some(bytes("done")),
            expect: Expect::Anything,
            ttl: RegisterTtl::Never,
            guard: Some((name("nightly"), token)),
        }))
    };
    assert!(ask(&mut shard, guarded(token)).is_ok(), "a Redis lock fences");
    let commit = Commit { checks: vec![(name("nightly"), token)], ..Commit::default() };
    assert!(ask(&mut shard, Op::Commit(Box::new(commit.clone()))).is_ok());
    let hold = HoldRef { name: name("nightly"), token, hold: 0 };
    let foreign = Err(Refusal::ForeignToken(name("nightly"), token));
    assert_eq!(ask(&mut shard, Op::Release(hold)), foreign, "keys have their own commands");

    assert_eq!(ask(&mut shard, Op::ForceRelease(name("nightly"))), Ok(Outcome::Forced(1)));
    assert_eq!(content(&mut shard, "nightly"), None);
    assert_eq!(view(&mut shard, "nightly").holders, []);
    let newer = take(&mut shard, "nightly", "worker 8", SECOND).expect("free again");
    let stale = Refusal::StaleToken { name: name("nightly"), token, current: Some(newer) };
    assert_eq!(ask(&mut shard, guarded(token)), Err(stale.clone()));
    assert_eq!(ask(&mut shard, Op::Commit(Box::new(commit))), Err(stale));
    shard.log.now += SECOND;
    assert_eq!(check(&mut shard, newer), Ok(Outcome::Held(false)), "dead from its deadline on");
    assert_eq!(ask(&mut shard, Op::ForceRelease(name("free"))), Ok(Outcome::Forced(0)));
    done(shard);
}

#[test]
fn the_label_of_a_claim_is_short_text_or_none() {
    let mut shard = Shard::new(Limits { label_bytes: 4, ..Limits::default() });
    let mut label = |content: Content| {
        decide(&mut shard, |keys| {
            keys.put(b"k", content).unwrap();
            keys.claim(b"k");
        });
        view(&mut shard, "k").holders[0].label.as_deref().map(str::to_owned)
    };
    let text = |bytes: &[u8]| Content::Text(bytes.into());
    assert_eq!(label(text(b"abc")).as_deref(), Some("abc"));
    assert_eq!(label(text("abcäö".as_bytes())).as_deref(), Some("abc"), "no half characters");
    assert_eq!(label(text(b"\xff\xfe")), None);
    assert_eq!(label(text(b"")), None);
    let mut list = Content::empty(Kind::List);
    list.apply(&Edit::Insert(0, bytes("x")));
    assert_eq!(label(list), None);
}

/// All names of a list of locks, page by page.
fn listed(shard: &mut Shard, prefix: &str, max: u32) -> Vec<String> {
    let (mut names, mut after) = (Vec::new(), 0);
    loop {
        let list = List { what: Listed::Locks, prefix: prefix.into(), after, max };
        let Ok(Outcome::Listed(listing)) = ask(shard, Op::List(list)) else { panic!("a page") };
        assert!(listing.items.len() <= max as usize);
        for item in listing.items {
            let ListedItem::Lock { name, view } = item else { panic!("a lock") };
            assert_eq!(view.holding, 1);
            names.push(name.as_str().to_owned());
        }
        match listing.next {
            Some(next) => after = next,
            None => return names,
        }
    }
}

#[test]
fn a_list_of_locks_goes_on_with_claimed_keys() {
    let mut shard = Shard::new(Limits { work_per_step: 3, ..Limits::default() });
    for i in 0..5 {
        ask(&mut shard, acquire(&format!("lease{i}"), Wait::No)).expect("free");
        take(&mut shard, &format!("claim{i}"), "me", 60 * SECOND).expect("free");
        set(&mut shard, &format!("plain{i}"), "no lock");
    }
    for odd in [&b"\xff\xfe"[..], b"two\nlines", &[b'x'; 300]] {
        decide(&mut shard, |keys| {
            keys.set(odd, bytes("me")).unwrap();
            keys.claim(odd);
        });
    }
    let all: Vec<String> =
        (0..5).map(|i| format!("lease{i}")).chain((0..5).map(|i| format!("claim{i}"))).collect();
    for max in [1, 2, 3, 5, 1000] {
        assert_eq!(listed(&mut shard, "", max), all, "pages of {max}");
        assert_eq!(listed(&mut shard, "claim", max), all[5..], "pages of {max}");
    }
    remove(&mut shard, "claim2");
    assert_eq!(listed(&mut shard, "claim", 2).len(), 4);
    done(shard);
}

#[test]
fn who_watches_a_lock_sees_claims_come_change_and_go() {
    let mut shard = shard();
    let watch = |shard: &mut Shard, known: Option<Token>| {
        let op = Op::WatchLock { name: name("job"), known, wait: Wait::Forever };
        shard.send(SessionId::NONE, None, op)
    };
    let told = |shard: &Shard, ticket: Ticket| match answer(shard, ticket) {
        Some(Ok(Outcome::Lock(view))) => Some(view.holders.first().map(|holder| holder.token)),
        None => None,
        other => panic!("a watch was answered {other:?}"),
    };
    let absent = watch(&mut shard, None);
    assert_eq!(told(&shard, absent), None);
    let token = take(&mut shard, "job", "me", SECOND).expect("free");
    assert_eq!(told(&shard, absent), Some(Some(token)), "it appeared");
    let changing = watch(&mut shard, Some(token));
    let later = shard.log.now + SECOND;
    decide(&mut shard, |keys| keys.expire(b"job", Some(later + 5))).unwrap();
    assert_eq!(told(&shard, changing), None, "a renewal is no change of hands");
    decide(&mut shard, |keys| {
        keys.set(b"job", bytes("you"))?;
        keys.expire(b"job", Some(later))
    })
    .unwrap();
    let second = claim(&shard, "job");
    assert_eq!(told(&shard, changing), Some(second), "another holder");
    let ending = watch(&mut shard, second);
    after(&mut shard, SECOND + 2 * MS);
    assert_eq!(told(&shard, ending), Some(None), "it ran out");
    let third = take(&mut shard, "job", "me", SECOND);
    let ending = watch(&mut shard, third);
    ask(&mut shard, write("job", Some("plain"))).expect("written");
    assert_eq!(told(&shard, ending), Some(None), "a plain register is no lock");
    done(shard);
}

#[test]
fn limits_refuse_what_is_too_much_and_leave_no_trace_of_it() {
    let mut shard = Shard::new(Limits {
        key_bytes: 8,
        value_bytes: 100,
        content_bytes: 1000,
        decision_bytes: 2000,
        registers_max: 3,
        ..Limits::default()
    });
    let too_large = |result: Result<(), Refusal>| {
        assert!(matches!(result, Err(Refusal::TooLarge(..))), "{result:?}");
    };
    let long = Bytes::from(&[b'x'; 101][..]);
    let put = |i: usize| Edit::Put(bytes(&i.to_string()), Bytes::from(&[b'x'; 50][..]));
    decide(&mut shard, |keys| {
        too_large(keys.set(b"a longer key", bytes("v")));
        assert!(matches!(keys.set(b"", bytes("v")), Err(Refusal::Zero(_))));
        too_large(keys.set(b"k", long.clone()));
        too_large(keys.edit(b"k", Edit::Insert(0, Bytes::from(&[b'x'; 200][..]))));
        assert_eq!(keys.changed().count(), 0);
        keys.edits(b"h", &(0..7).map(put).collect::<Vec<_>>()).unwrap();
        too_large(keys.edits(b"h", &(7..14).map(put).collect::<Vec<_>>()));
        assert_eq!(keys.get(b"h").map(|seen| seen.content.len()), Some(7), "all or none");
        let wrong = keys.edit(b"h", Edit::Add(bytes("m")));
        assert!(matches!(wrong, Err(Refusal::BadSettings(_))), "another kind of content");
        keys.edit(b"h", Edit::Drop(bytes("3"))).unwrap();
    });
    decide(&mut shard, |keys| {
        let mut written = 0;
        while keys.set(b"k", Bytes::from(&[b'x'; 90][..])).is_ok() {
            written += 90;
        }
        assert!((1900..=2000).contains(&written), "a decision ends somewhere: {written}");
    });
    decide(&mut shard, |keys| {
        assert!(keys.expect_absent(b"only") && keys.expect_absent(b"looked"));
        keys.set(b"c", bytes("v")).unwrap();
        let full = keys.set(b"d", bytes("v"));
        assert!(matches!(full, Err(Refusal::Limit(..))), "one more key: {full:?}");
        keys.set(b"c", bytes("w")).unwrap();
        keys.set(b"h", bytes("there already")).unwrap();
    });
    let full = decide(&mut shard, |keys| keys.edit(b"d", Edit::Add(bytes("m"))));
    assert!(matches!(full, Err(Refusal::Limit(..))), "{full:?}");
    assert!(remove(&mut shard, "c"));
    set(&mut shard, "d", "v");
    done(shard);
}

#[test]
fn claims_and_collections_outlive_checkpoints_and_restarts() {
    let mut shard = shard();
    let token = take(&mut shard, "job", "me", 60 * SECOND).expect("free");
    for i in 0..200 {
        let (field, place) = (bytes(&format!("f{i}")), i / 2);
        edit(&mut shard, "hash", &[Edit::Put(field.clone(), bytes("v"))]);
        edit(&mut shard, "list", &[Edit::Insert(place, field.clone())]);
        edit(&mut shard, "set", &[Edit::Add(field.clone())]);
        edit(&mut shard, "sorted", &[Edit::Score(field, f64::from(i % 7) - 3.0)]);
        if i == 100 {
            shard.checkpoint(true, 2);
        }
    }
    shard.laws();
    shard.checkpoint(false, usize::MAX);
    edit(&mut shard, "list", &[Edit::Remove(10, 50)]);
    edit(&mut shard, "sorted", &[Edit::Score(bytes("f3"), -0.0), Edit::Score(bytes("f4"), 0.0)]);
    let keys = ["hash", "list", "set", "sorted"];
    let before = keys.map(|key| content(&mut shard, key));
    after(&mut shard, 5 * SECOND);
    let held = view(&mut shard, "job");
    shard.restart();
    assert_eq!(keys.map(|key| content(&mut shard, key)), before);
    assert_eq!(view(&mut shard, "job"), held, "the same holder for the same time");
    assert_eq!(held.holders[0].token, token);
    let busy = ask(&mut shard, acquire("job", Wait::No));
    assert!(matches!(busy, Err(Refusal::Busy { holder, .. }) if holder == Some(token)));
    after(&mut shard, 60 * SECOND);
    assert!(ask(&mut shard, acquire("job", Wait::No)).is_ok(), "it ran out after the restart");
    done(shard);
}

#[test]
fn a_claim_passes_nobody_who_waits_for_its_name_and_another_one() {
    let mut shard = shard();
    let Ok(Outcome::Granted { token, .. }) = ask(&mut shard, acquire("b", Wait::No)) else {
        panic!("it was free")
    };
    let Op::Acquire(mut both) = acquire("a", Wait::AtMost(60 * SECOND)) else { unreachable!() };
    let wants = [(name("a"), Mode::Exclusive), (name("b"), Mode::Exclusive)];
    both.wants = Wants::Many(wants.into());
    let waiting = shard.send(SessionId::NONE, None, Op::Acquire(both));
    assert_eq!(answer(&shard, waiting), None, "b is held");

    let busy = Refusal::Busy { name: name("a"), holder: None, left_us: None };
    assert_eq!(ask(&mut shard, acquire("a", Wait::No)), Err(busy), "no lease passes");
    assert_eq!(take(&mut shard, "a", "me", SECOND), None, "and no claim");
    let left_us = Some(10 * SECOND);
    let busy = Refusal::Busy { name: name("a"), holder: None, left_us };
    decide(&mut shard, |keys| {
        let kept = keys.kept_away(b"a").expect("kept for the one who waits");
        assert_eq!((kept.token, kept.expires), (Token(0), left_us.map(|left| keys.now() + left)));
        assert_eq!(keys.leased(b"a"), None);
        assert_eq!(keys.set(b"a", bytes("v")), Err(busy.clone()));
        assert_eq!(keys.edit(b"a", Edit::Add(bytes("v"))), Err(busy));
        assert_eq!(keys.remove(b"a"), Ok(false));
        assert_eq!(keys.expire(b"a", None), Ok(false));
        assert_eq!(keys.kept_away(b"c"), None);
    });
    let hold = HoldRef { name: name("b"), token, hold: 1 };
    ask(&mut shard, Op::Release(hold)).expect("it is held");
    assert!(matches!(answer(&shard, waiting), Some(Ok(Outcome::Granted { .. }))));
    assert_eq!(take(&mut shard, "a", "me", SECOND), None, "held now");
    done(shard);
}

#[test]
fn who_takes_its_claim_again_in_the_decision_that_ends_it_has_held_it_all_the_time() {
    let mut shard = shard();
    let first = take(&mut shard, "job", "me", 60 * SECOND).expect("it was free");
    let waiting = shard.send(SessionId::NONE, None, acquire("job", Wait::Forever));
    decide(&mut shard, |keys| {
        keys.remove(b"job").expect("no lease");
        assert!(keys.kept_away(b"job").is_none() && keys.expect_absent(b"job"));
        keys.set(b"job", bytes("me again")).expect("it is free");
        keys.expire(b"job", Some(keys.now() + SECOND)).expect("no lease");
    });
    assert!(claim(&shard, "job") > Some(first), "a claim, with a token of its own");
    assert_eq!(answer(&shard, waiting), None, "it was never free");
    after(&mut shard, 2 * SECOND);
    assert!(matches!(answer(&shard, waiting), Some(Ok(Outcome::Granted { .. }))));
    done(shard);
}

#[test]
fn what_a_decision_changes_fits_into_a_segment_of_the_journal() {
    let segment_bytes = 128 << 10;
    let mut shard = Shard::new(Limits { segment_bytes, ..Limits::default() });
    let too_large = |refused| matches!(refused, Refusal::TooLarge(_, _, most) if most < 128 << 10);
    let key = |n: usize| format!("key-{n}").into_bytes();
    let made = decide(&mut shard, |keys| {
        let made = (0..).find(|n| keys.set(&key(*n), bytes("v")).is_err_and(too_large));
        made.expect("a decision ends somewhere")
    });
    assert!((400..1000).contains(&made), "{made} keys were made");
    decide(&mut shard, |keys| (made..made + 200).try_for_each(|n| keys.set(&key(n), bytes("v"))))
        .expect("so few fit");
    type Change = fn(&mut Keys<'_, '_>, &[u8]) -> Result<bool, Refusal>;
    let changes: [Change; 2] =
        [|keys, key| keys.expire(key, Some(keys.now() + SECOND)), |keys, key| keys.remove(key)];
    for change in changes {
        let changed = decide(&mut shard, |keys| {
            let changed = (0..made + 200).find(|n| change(keys, &key(*n)).is_err_and(too_large));
            keys.abandon();
            assert!(change(keys, &key(0)).is_ok(), "what is abandoned takes no room");
            changed.expect("a decision ends somewhere")
        });
        assert!((400..1000).contains(&changed), "{changed} keys were changed");
    }
    decide(&mut shard, |keys| (0..100_000).try_for_each(|_| keys.set(b"one", bytes(""))))
        .expect("one key, however often");
    assert!(shard.log.largest_group <= segment_bytes as usize, "{}", shard.log.largest_group);
    done(shard);
}
