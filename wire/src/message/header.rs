//! Headers: a JSON object whose order is kept.

use std::fmt;

use leasehold_api::Value;
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bytes::{from_base64, to_base64};

/// Application headers: true or false, numbers, text, or `{"base64": "…"}` for bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Headers(pub Vec<(String, Value)>);

struct ValueText<'a>(&'a Value);

impl Serialize for ValueText<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Bool(value) => out.serialize_bool(*value),
            Value::Int(value) => out.serialize_i64(*value),
            Value::Float(value) => out.serialize_f64(*value),
            Value::Text(value) => out.serialize_str(value),
            Value::Bytes(value) => {
                let mut map = out.serialize_map(Some(1))?;
                map.serialize_entry("base64", &to_base64(value))?;
                map.end()
            }
        }
    }
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, &ValueText(value))?;
        }
        map.end()
    }
}

struct ValueField(Value);

impl<'de> Deserialize<'de> for ValueField {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ValueVisitor).map(Self)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, a number, text or {\"base64\": \"…\"}")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        let fits = i64::try_from(value).map(Value::Int);
        fits.map_err(|_| E::custom("a whole number in a header is below 2^63"))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_string()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let entry = map.next_entry::<String, String>()?;
        match (entry, map.next_key::<String>()?) {
            (Some((name, text)), None) if name == "base64" => {
                from_base64("base64", &text).map(Value::Bytes).map_err(de::Error::custom)
            }
            _ => Err(de::Error::custom("an object in a header is {\"base64\": \"…\"}")),
        }
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of headers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = Vec::new();
                while let Some((name, ValueField(value))) = map.next_entry()? {
                    headers.push((name, value));
                }
                Ok(Headers(headers))
            }
        }
        from.deserialize_map(All)
    }
}

#[cfg(feature = "openapi")]
mod schema {
    use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema};
    use utoipa::openapi::{RefOr, schema::Type};

    impl utoipa::ToSchema for super::Headers {
        fn name() -> std::borrow::Cow<'static, str> {
            "Headers".into()
        }
    }

    impl utoipa::PartialSchema for super::Headers {
        fn schema() -> RefOr<Schema> {
            let about =
                "Application headers: true or false, numbers, text, or {\"base64\": \"…\"}.";
            let object = ObjectBuilder::new()
                .schema_type(Type::Object)
                .description(Some(about))
                .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)));
            object.build().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back_as_itself() {
        let headers = Headers(vec![
            ("z".into(), Value::Bool(true)),
            ("a".into(), Value::Int(-5)),
            ("f".into(), Value::Float(1.5)),
            ("t".into(), Value::Text("x".into())),
            ("b".into(), Value::Bytes(vec![255])),
        ]);
        let text = serde_json::to_string(&headers).unwrap();
        assert_eq!(text, r#"{"z":true,"a":-5,"f":1.5,"t":"x","b":{"base64":"/w=="}}"#);
        assert_eq!(serde_json::from_str::<Headers>(&text).unwrap(), headers);
    }

    #[test]
    fn other_values_are_refused() {
        for text in [r#"{"a":null}"#, r#"{"a":[]}"#, r#"{"a":{"b":1}}"#, "[]"] {
            assert!(serde_json::from_str::<Headers>(text).is_err(), "{text}");
        }
        let error = serde_json::from_str::<Headers>(r#"{"a":18446744073709551615}"#).unwrap_err();
        assert!(error.to_string().contains("2^63"), "{error}");
    }
}
