//! Schemas of types, as components of the document.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value as Json, json};

/// Gathers the schemas that operations refer to. What is written and what is read are two views of a type: a field
/// that is always written is required of an answer, one that has a default is not required of a request.
pub(crate) struct Schemas {
    answers: SchemaGenerator,
    requests: SchemaGenerator,
    written: Map<String, Json>,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self {
            answers: settings().for_serialize().into_generator(),
            requests: settings().for_deserialize().into_generator(),
            written: Map::new(),
        }
    }

    /// What an answer of this type looks like.
    pub(crate) fn answer<T: JsonSchema>(&mut self) -> Json {
        self.answers.subschema_for::<T>().to_value()
    }

    /// What a body of this type looks like.
    pub(crate) fn request<T: JsonSchema>(&mut self) -> Json {
        self.requests.subschema_for::<T>().to_value()
    }

    /// The parameters of a query of this type.
    pub(crate) fn query<T: JsonSchema>(&mut self) -> Vec<Json> {
        let mut schema = T::json_schema(&mut self.requests).to_value();
        let required = schema["required"].take();
        let required = required.as_array().cloned().unwrap_or_default();
        let Some(fields) = schema["properties"].as_object_mut() else {
            return Vec::new();
        };
        let fields = std::mem::take(fields).into_iter();
        fields
            .map(|(name, field)| {
                let mut field = without_null(field);
                let mut parameter = json!({"name": name, "in": "query"});
                if let Some(description) = field
                    .as_object_mut()
                    .and_then(|field| field.remove("description"))
                {
                    parameter["description"] = description;
                }
                if required.contains(&json!(name)) {
                    parameter["required"] = json!(true);
                }
                parameter["schema"] = field;
                parameter
            })
            .collect()
    }

    /// Adds a schema that no type describes, and refers to it.
    pub(crate) fn written(&mut self, name: &str, schema: Json) -> Json {
        self.written.insert(name.to_owned(), schema);
        reference(name)
    }

    /// All of them, by name.
    pub(super) fn into_definitions(mut self) -> Map<String, Json> {
        let mut all = self.answers.take_definitions(true);
        all.values_mut().for_each(left_out_or_there);
        for (name, schema) in self.requests.take_definitions(true) {
            let known = all.insert(name.clone(), schema.clone());
            debug_assert!(
                known.is_none_or(|known| known == schema),
                "two schemas are called {name}"
            );
        }
        for (name, schema) in self.written {
            let known = all.insert(name.clone(), schema);
            debug_assert!(known.is_none(), "two schemas are called {name}");
        }
        all
    }
}

/// Refers to a schema of the document.
pub(super) fn reference(name: &str) -> Json {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Answers leave a field out or have it: a Rust option that may be left out is never null. (Schemas that are written
/// by hand say `oneOf` where something may be left out and may be null as well.)
fn left_out_or_there(schema: &mut Json) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let Some(fields) = schema.get_mut("properties").and_then(Json::as_object_mut) else {
        return;
    };
    for (name, field) in fields {
        if !required.contains(&json!(name)) {
            *field = without_null(field.take());
        }
    }
}

/// A query has no null: a parameter that may be left out is left out.
fn without_null(mut schema: Json) -> Json {
    if let Some(kinds) = schema["type"].as_array_mut() {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            schema["type"] = kind.clone();
        }
    }
    if let Some(values) = schema["enum"].as_array_mut() {
        values.retain(|value| !value.is_null());
    }
    if let Some(choices) = schema["anyOf"].as_array_mut() {
        choices.retain(|choice| choice["type"] != "null");
        if let [choice] = choices.as_slice() {
            let choice = choice.clone();
            let description = schema["description"].take();
            schema = choice;
            if !description.is_null() {
                schema["description"] = description;
            }
        }
    }
    if let Some(fields) = schema.as_object_mut() {
        // Indexing has put nulls where nothing was.
        fields.retain(|_, value| !value.is_null());
    }
    schema
}
