//! All models: reading the files once, and finding a model by any of its names.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use super::{
    file::{self, Stanza},
    model::{Model, Route, Status},
    request::{Parameter, Params},
    rules::nearest,
};

/// The files of `config/models/`, compiled in, in the order of listings.
const BUILT_IN: &[(&str, &str)] = &[
    (
        "config/models/openai.toml",
        include_str!("../../config/models/openai.toml"),
    ),
    (
        "config/models/stability.toml",
        include_str!("../../config/models/stability.toml"),
    ),
    (
        "config/models/black-forest-labs.toml",
        include_str!("../../config/models/black-forest-labs.toml"),
    ),
    (
        "config/models/google.toml",
        include_str!("../../config/models/google.toml"),
    ),
    (
        "config/models/sandbox.toml",
        include_str!("../../config/models/sandbox.toml"),
    ),
];

/// What a request without `model` gets, and what it gets when it carries a parameter that only the
/// gpt-image family takes (`contracts/openai-images.md`, 1.1, `model`).
const DEFAULT_MODEL: &str = "dall-e-2";
const DEFAULT_GPT_IMAGE: &str = "gpt-image-1";
/// The same for edits (section 4.2) and variations (section 4.3).
const DEFAULT_EDITOR: &str = "gpt-image-1.5";
const DEFAULT_VARIER: &str = "dall-e-2";

/// The parameters that only the gpt-image family takes (`contracts/openai-images.md`, 1.1 and 1.3).
const GPT_IMAGE_ONLY: &[Parameter] = &[
    Parameter::Background,
    Parameter::OutputFormat,
    Parameter::OutputCompression,
    Parameter::Moderation,
    Parameter::Stream,
    Parameter::PartialImages,
    Parameter::Complexity,
    Parameter::FrameCount,
    Parameter::FrameDurationMs,
    Parameter::Svg,
];

/// Why a catalog did not load. Shown as `file:line: what is wrong`.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", place(file, *line))]
pub struct CatalogError {
    /// The file at fault.
    pub file: String,
    /// The line in it, if it could be read at all.
    pub line: Option<usize>,
    /// What is wrong there.
    pub problem: String,
}

fn place(file: &str, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{file}:{line}"),
        None => file.to_owned(),
    }
}

/// All models.
#[derive(Debug)]
pub struct Catalog {
    models: Vec<Arc<Model>>,
    /// Every name in lower case → the model as a request gets it that uses this name.
    by_name: HashMap<String, Arc<Model>>,
}

impl Catalog {
    /// The compiled-in models, replaced (whole, by id) and added to by the `*.toml` files of
    /// `models_dir`, in the order of their names.
    ///
    /// # Errors
    /// The first file that is wrong.
    pub fn load(models_dir: Option<&Path>) -> Result<Self, CatalogError> {
        let mut building = Building::default();
        building.add_files(
            BUILT_IN
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned())),
        )?;
        if let Some(directory) = models_dir {
            building.add_files(read_directory(directory)?)?;
        }
        building.finish()
    }

    /// The model with this id or alias, or pinned to this snapshot of it; capitals do not matter.
    pub fn find(&self, name: &str) -> Option<&Arc<Model>> {
        self.by_name
            .get(name)
            .or_else(|| self.by_name.get(&name.to_lowercase()))
    }

    /// The name most like `name`, for a hint; `None` when none is much like it.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let names = self.models.iter().flat_map(|model| model.names());
        nearest(&name.to_lowercase(), names)
    }

    /// Every model, in the order of the files.
    pub fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// Whether a model that is not retired has the same upstream model: then a retired one is only a name.
    pub fn leads_to_the_living(&self, route: &Route) -> bool {
        self.models
            .iter()
            .filter(|model| !matches!(model.status, Status::Retired { .. }))
            .flat_map(|model| &model.routes)
            .any(|other| {
                (&other.provider, &other.upstream_model) == (&route.provider, &route.upstream_model)
            })
    }

    /// [`Catalog::default_model`] for an edit.
    pub fn default_editor() -> &'static str {
        DEFAULT_EDITOR
    }

    /// [`Catalog::default_model`] for a variation.
    pub fn default_varier() -> &'static str {
        DEFAULT_VARIER
    }

    /// The name of the model that a request gets which names none, where the operator has set no
    /// other: the one that `OpenAI` documented.
    pub fn default_model(params: &Params) -> &'static str {
        if GPT_IMAGE_ONLY
            .iter()
            .any(|parameter| params.contains_key(parameter))
        {
            DEFAULT_GPT_IMAGE
        } else {
            DEFAULT_MODEL
        }
    }
}

fn read_directory(directory: &Path) -> Result<Vec<(String, String)>, CatalogError> {
    let failed = |path: &Path, error: std::io::Error| CatalogError {
        file: path.display().to_string(),
        line: None,
        problem: format!("cannot be read: {error}"),
    };
    let mut paths = fs::read_dir(directory)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(|error| CatalogError {
            problem: format!("models_dir cannot be read: {error}"),
            ..failed(directory, error)
        })?;
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
            Ok((path.display().to_string(), text))
        })
        .collect()
}

/// A catalog whose names may still clash.
#[derive(Default)]
struct Building {
    models: Vec<Placed>,
}

/// A model and where it stands.
struct Placed {
    model: Model,
    file: String,
    line: usize,
    /// Which call of [`Building::add_files`] brought it.
    layer: usize,
}

impl Building {
    /// Adds a layer of files; a model whose id an earlier layer has takes that one's place.
    fn add_files(
        &mut self,
        files: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), CatalogError> {
        let layer = self.models.iter().map(|placed| placed.layer + 1).max();
        let layer = layer.unwrap_or_default();
        for (file, text) in files {
            let stanzas = file::parse(&text).map_err(|fault| CatalogError {
                file: file.clone(),
                line: Some(fault.line),
                problem: fault.problem,
            })?;
            for Stanza { line, model } in stanzas {
                let placed = Placed {
                    model,
                    file: file.clone(),
                    line,
                    layer,
                };
                let replaced = self
                    .models
                    .iter_mut()
                    .find(|earlier| earlier.layer < layer && earlier.model.id == placed.model.id);
                match replaced {
                    Some(earlier) => *earlier = placed,
                    None => self.models.push(placed),
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Catalog, CatalogError> {
        self.check_names()?;
        let mut models = Vec::with_capacity(self.models.len());
        let mut by_name = HashMap::new();
        for Placed { model, .. } in self.models {
            let model = Arc::new(model);
            for name in model.own_names() {
                by_name.insert(name.to_lowercase(), Arc::clone(&model));
            }
            for snapshot in &model.snapshots {
                by_name.insert(snapshot.to_lowercase(), Arc::new(model.pinned(snapshot)));
            }
            models.push(model);
        }
        Ok(Catalog { models, by_name })
    }

    /// Every name stands for one thing.
    fn check_names(&self) -> Result<(), CatalogError> {
        let mut taken: HashMap<String, &Placed> = HashMap::new();
        for placed in &self.models {
            for name in placed.model.names() {
                let Some(earlier) = taken.insert(name.to_lowercase(), placed) else {
                    continue;
                };
                return Err(CatalogError {
                    file: placed.file.clone(),
                    line: Some(placed.line),
                    problem: format!(
                        "model '{}': the name '{name}' is taken by model '{}' ({}:{})",
                        placed.model.id, earlier.model.id, earlier.file, earlier.line
                    ),
                });
            }
        }
        Ok(())
    }
}
