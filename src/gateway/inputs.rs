//! What a request is painted from, as admission sees it: which rules hold, which routes can do it, and the
//! sizes that it is priced by.

use std::sync::Arc;

use super::{Order, Rooms, admit};
use crate::{
    catalog::{
        ImageRequest, ImageSize, InputPicture, InputPictures, Model, Params, Route, Rules,
        Violation,
    },
    images::Upload,
    providers::Task,
};

/// A vector picture may say no size; it counts as one of this many pixels a side.
const VECTOR_SIDE: u32 = 4096;
/// More models than this are not named in a refusal.
const MOST_NAMED: usize = 12;

/// The rules that hold for this task; `None` when the model does not do it.
pub(super) fn rules_for<'a>(task: &Task, model: &'a Model) -> Option<&'a Rules> {
    match task {
        Task::Generate => model.generates.then_some(&model.rules),
        Task::Edit(_) => model.rules.edits(),
        Task::Vary(_) => model.rules.variations(),
    }
}

/// Checks the pictures against the rules that hold.
pub(super) fn check(
    task: &Task,
    rules: &Rules,
    params: &Params,
    request: &ImageRequest,
) -> Result<(), Violation> {
    let (images, mask) = match task {
        Task::Generate => return Ok(()),
        Task::Edit(inputs) => (
            inputs.images.iter().map(describe).collect(),
            inputs.mask.as_ref().map(describe),
        ),
        Task::Vary(image) => (vec![describe(image)], None),
    };
    let pictures = InputPictures {
        images: &images,
        mask: mask.as_ref(),
    };
    rules.check_pictures(&pictures, params, request)
}

fn describe(upload: &Upload) -> InputPicture {
    let info = upload.info();
    InputPicture {
        format: info.format.into(),
        size: info.size,
        size_bytes: upload.size_bytes(),
        has_alpha: upload.has_alpha(),
    }
}

/// The route as this task goes it, or why it cannot.
pub(super) fn route_for(task: &Task, route: &Arc<Route>) -> Result<Arc<Route>, String> {
    match task {
        Task::Generate => Ok(Arc::clone(route)),
        Task::Edit(inputs) => {
            let edits = route.edits.as_ref().ok_or("it does not edit images")?;
            if inputs.images.len() > usize::from(edits.max_images.get()) {
                return Err(format!("it takes at most {} images", edits.max_images));
            }
            if inputs.mask.is_some() && !edits.mask {
                return Err("it takes no mask".to_owned());
            }
            let route = match &edits.masked {
                Some(masked) if inputs.mask.is_some() => masked,
                Some(_) | None => &edits.route,
            };
            Ok(Arc::clone(route))
        }
        Task::Vary(_) if route.varies => Ok(Arc::clone(route)),
        Task::Vary(_) => Err("it makes no variations".to_owned()),
    }
}

/// The sizes of the pictures to edit, in order.
pub(super) fn image_sizes(task: &Task) -> Vec<ImageSize> {
    match task {
        Task::Generate => Vec::new(),
        Task::Edit(inputs) => inputs.images.iter().filter_map(size).collect(),
        Task::Vary(image) => size(image).into_iter().collect(),
    }
}

/// The same with the mask, which counts as a picture where nobody says that it does not.
pub(super) fn all_sizes(task: &Task) -> Vec<ImageSize> {
    let mut sizes = image_sizes(task);
    if let Task::Edit(inputs) = task {
        sizes.extend(inputs.mask.as_ref().and_then(size));
    }
    sizes
}

fn size(upload: &Upload) -> Option<ImageSize> {
    let info = upload.info();
    info.size
        .or_else(|| ImageSize::new(VECTOR_SIDE, VECTOR_SIDE))
}

/// The models that can do what was asked, for this key.
pub(super) fn others(rooms: &Rooms, order: &Order) -> Vec<String> {
    let providers = &rooms.providers;
    let serves = |model: &&Arc<Model>| {
        admit::check_allowed(&order.key, model).is_ok()
            && rules_for(&order.task, model).is_some()
            && model.routes.iter().any(|route| {
                route_for(&order.task, route)
                    .and_then(|route| admit::candidacy(providers, &order.key, &route))
                    .is_ok()
            })
    };
    let models = rooms.catalog.models().iter().filter(serves);
    models.map(|model| model.id.clone()).collect()
}

/// The refusal of a model that does not do what was asked.
pub(super) fn not_this_model(task: &Task, model: &Model, others: &[String]) -> Violation {
    let what = match task {
        Task::Generate => "only edits images, so it needs some (POST /v1/images/edits)",
        Task::Edit(_) => "takes no input images, so it cannot edit",
        Task::Vary(_) => "makes no variations",
    };
    let others = match others {
        _ if matches!(task, Task::Generate) => {
            "Other models paint from a prompt alone: see GET /v1/models.".to_owned()
        }
        [] => "No model that this API key can use does.".to_owned(),
        named if named.len() > MOST_NAMED => format!(
            "These do, among others: {}.",
            named[..MOST_NAMED].join(", ")
        ),
        named => format!("These do: {}.", named.join(", ")),
    };
    let message = format!("The model '{}' {what}. {others}", model.id);
    Violation::named("model", "invalid_value", message)
}

/// The refusal where the model could, but none of its routes can.
pub(super) fn no_able_route(
    task: &Task,
    model: &Model,
    routes: &[Result<Arc<Route>, String>],
) -> Violation {
    let why: Vec<String> = model
        .routes
        .iter()
        .zip(routes)
        .filter_map(|(route, able)| Some(format!("{}: {}", route.provider, able.as_ref().err()?)))
        .collect();
    let parameter = match task {
        Task::Edit(inputs) if inputs.mask.is_some() => "mask",
        Task::Generate | Task::Edit(_) | Task::Vary(_) => "image",
    };
    Violation::named(
        parameter,
        "no_route",
        format!(
            "No provider of the model '{}' can do this: {}.",
            model.id,
            why.join("; ")
        ),
    )
}
