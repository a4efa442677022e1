//! What the engine behind a door promises: the list of `leasehold_api::every_guarantee`, in JSON.
//!
//! A field that is unknown is passed over, and one that is missing is the weakest of its kind: a
//! client promises nothing that its server did not say.

use leasehold_api as api;
use serde::{Deserialize, Serialize};

/// Writes every promise: its names on the wire, and back.
macro_rules! promises {
    ($(
        $(#[doc = $about:literal])+
        $field:ident: $name:ident {
            $(#[doc = $least_about:literal])+ $least:ident,
            $($(#[doc = $step_about:literal])+ $step:ident,)+
        }
    )*) => {
        $(
            $(#[doc = $about])+
            #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
            #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
            // Some are called as lists of things are.
            #[cfg_attr(feature = "openapi", schema(as = guarantee::$name))]
            #[serde(rename_all = "kebab-case")]
            pub enum $name {
                $(#[doc = $least_about])+
                #[default]
                $least,
                $($(#[doc = $step_about])+ $step,)+
            }

            impl From<api::$name> for $name {
                fn from(promised: api::$name) -> Self {
                    match promised {
                        api::$name::$least => Self::$least,
                        $(api::$name::$step => Self::$step,)+
                    }
                }
            }

            impl From<$name> for api::$name {
                fn from(promised: $name) -> Self {
                    match promised {
                        $name::$least => Self::$least,
                        $($name::$step => Self::$step,)+
                    }
                }
            }
        )*

        /// What the engine behind the door promises.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(default)]
        pub struct Guarantees {
            $($(#[doc = $about])+ pub $field: $name,)*
        }

        impl From<api::Guarantees> for Guarantees {
            fn from(promised: api::Guarantees) -> Self {
                Self { $($field: promised.$field.into(),)* }
            }
        }

        impl From<Guarantees> for api::Guarantees {
            fn from(promised: Guarantees) -> Self {
                Self { $($field: promised.$field.into(),)* }
            }
        }
    };
}
api::every_guarantee!(promises);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> api::Guarantees {
        serde_json::from_value::<Guarantees>(json).expect("it is read").into()
    }

    #[test]
    fn everything_and_nothing_come_back() {
        for promised in [api::Guarantees::EVERYTHING, api::Guarantees::NOTHING] {
            let json = serde_json::to_value(Guarantees::from(promised)).expect("it is written");
            assert_eq!(json.as_object().map(|fields| fields.len()), Some(promised.all().count()));
            assert_eq!(read(json), promised);
        }
    }

    #[test]
    fn names_are_kebab_case() {
        let json = serde_json::to_value(Guarantees::from(api::Guarantees::EVERYTHING));
        let json = json.expect("it is written");
        assert_eq!((&json["multi_lock"], &json["fencing"]), (&"atomic".into(), &"strict".into()));
    }

    #[test]
    fn what_a_server_does_not_say_is_not_promised() {
        let told = read(serde_json::json!({"fencing": "strict", "telepathy": "always"}));
        let strict = api::Guarantees { fencing: api::Fencing::Strict, ..api::Guarantees::NOTHING };
        assert_eq!(told, strict);
    }
}
