//! Users that change while doors are open.

use std::time::Duration;

use leasehold_api::ErrorKind;
use leasehold_users::{
    Allowance, Permission, User, UserLimits, Users, hash_password, hash_token, token_hash,
};

fn user(name: &str, password: &str) -> User {
    User {
        name: name.to_owned(),
        password: Some(hash_password(password).expect("there is randomness")),
        tokens: vec![token_hash(&hash_token(&format!("{name}'s token"))).expect("it is a hash")],
        allowances: vec![Allowance { on: "*".to_owned(), allow: vec![Permission::Lock] }],
    }
}

#[tokio::test]
async fn whoever_was_taken_out_is_a_stranger_although_remembered() {
    let (ada, bob) = (user("ada", "correct horse"), user("bob", "battery staple"));
    let users = Users::new(vec![ada.clone(), bob.clone()], UserLimits::default());
    for _ in 0..2 {
        let found = users.password("ada", "correct horse").await.expect("she is known");
        assert_eq!(*found, ada);
    }
    assert_eq!(*users.token("bob's token").expect("he is known"), bob);
    users.replace(vec![bob.clone()]);
    let error = users.password("ada", "correct horse").await.expect_err("she is gone");
    assert_eq!(error.kind, ErrorKind::Unauthenticated);
    let error = users.token("ada's token").expect_err("she is gone");
    assert_eq!(error.kind, ErrorKind::Unauthenticated);
    users.password("bob", "battery staple").await.expect("he is still known");
}

#[tokio::test]
async fn nobody_at_all_is_everybody() {
    let users = Users::default();
    assert!(users.is_open());
    users.replace(vec![user("ada", "correct horse")]);
    assert!(!users.is_open());
    users.replace(Vec::new());
    assert!(users.is_open());
    users.token("ada's token").expect_err("nobody is known");
}

#[tokio::test]
async fn a_lasting_connection_hears_of_a_change_of_its_user_only() {
    let (ada, bob) = (user("ada", "correct horse"), user("bob", "battery staple"));
    let users = Users::new(vec![ada.clone(), bob.clone()], UserLimits::default());
    let mut departed = std::pin::pin!(users.departed(&ada));
    let stays = tokio::time::timeout(Duration::from_millis(1), &mut departed).await;
    assert!(stays.is_err());
    users.replace(vec![ada.clone()]);
    let stays = tokio::time::timeout(Duration::from_millis(1), &mut departed).await;
    assert!(stays.is_err(), "only bob is gone");
    users.replace(vec![User { allowances: Vec::new(), ..ada.clone() }]);
    departed.await;
}
