//! How Home Assistant learns what is here: a device for each source, with its entities.
//!
//! This writes the JSON of Home Assistant's MQTT device discovery, which the tests below freeze. A prompt is a binary
//! sensor (does it go on now), a sensor (its score) and an event entity (started, ended); the source itself is a
//! diagnostic sensor. Everything is unavailable while the node is away, and prompts are while their source has no
//! sound. Entities are known by their topics, which no two of a broker share, and so outlive a change of words.
//!
//! Where a device does not fit into what the broker takes, each entity is a message of its own, with the short names that
//! Home Assistant knows for its keys.

use std::collections::BTreeMap;
use std::time::Duration;

use clapd_core::prompts::Prompt;
use serde::Serialize;
use serde_json::Value;

use super::message;
use super::names::entity_id;
use super::ownership::identifier;
use super::topics::Topics;
use crate::health::FAILING;
use crate::levels::LevelReference;

/// States of a source, as health has them, in which sound comes.
const LISTENING_STATES: [&str; 4] = ["live", "silent", "clipping", "recovering"];
/// And those in which none does. Home Assistant takes none for an enum that is not listed.
const OTHER_STATES: [&str; 6] = ["starting", "stalled", "lost", "ended", "paused", FAILING];
/// Scores that may fail to come before a sensor shows none: one may be skipped or late, five in a row are an outage.
const MISSED_SCORES: u32 = 5;
/// Wireless links pause for seconds; a sensor need not flicker for that.
const LEAST_EXPIRY_S: u64 = 5;
/// The level sensor's name among a device's entities. (A prompt's end in `_score`, `_state` and `_event`.)
const LEVEL: &str = "level";
/// Letters of a name: beyond it, a card on a dashboard shows dots.
const MAX_NAME: usize = 60;

/// What all devices of a node have in common.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) topics: Topics,
    /// clapd's version.
    pub(super) version: String,
    /// The bundle's name and version.
    pub(super) model: String,
}

/// A prompt as Home Assistant shall know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PromptEntity {
    pub(super) id: String,
    pub(super) name: String,
}

/// What a device is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeviceSpec<'a> {
    pub(super) source: &'a str,
    pub(super) prompts: &'a [PromptEntity],
    /// Ids of prompts that it has no more: their entities are removed.
    pub(super) removed: &'a [String],
    /// Time between two scores.
    pub(super) period: Duration,
    pub(super) level: LevelSensor,
}

/// The sensor of how loud it is at a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum LevelSensor {
    /// Nobody asked for levels: nothing is said of it.
    #[default]
    None,
    /// Nobody wants it any more.
    Removed,
    /// A level comes each minute, against this reference.
    Shown(LevelReference),
}

#[derive(Serialize)]
struct DevicePayload<'a> {
    device: DeviceBlock,
    origin: OriginBlock<'a>,
    availability: [Availability<'a>; 2],
    availability_mode: &'static str,
    components: BTreeMap<String, Component<'a>>,
}

/// What Home Assistant shows of the device; beside the identifiers nothing where another message says it.
#[derive(Serialize, Default)]
struct DeviceBlock {
    identifiers: [String; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manufacturer: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sw_version: Option<String>,
}

#[derive(Serialize)]
struct SingleEntity<'a> {
    device: &'a DeviceBlock,
    origin: OriginBlock<'a>,
    availability_mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    availability: Option<&'a [Availability<'a>; 2]>,
    #[serde(flatten)]
    entity: Option<Entity<'a>>,
}

#[derive(Serialize)]
struct OriginBlock<'a> {
    name: &'static str,
    sw_version: &'a str,
}

#[derive(Serialize)]
struct Availability<'a> {
    topic: &'a str,
    value_template: String,
}

/// An entity; one with nothing but its platform is removed.
#[derive(Serialize)]
struct Component<'a> {
    platform: &'static str,
    #[serde(flatten)]
    entity: Option<Entity<'a>>,
}

#[derive(Serialize, Default)]
struct Entity<'a> {
    unique_id: String,
    default_entity_id: String,
    name: String,
    state_topic: String,
    qos: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    icon: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_category: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_template: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_attributes_topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_attributes_template: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit_of_measurement: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suggested_display_precision: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_after: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    event_types: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    availability: Option<[Availability<'a>; 1]>,
}

impl PromptEntity {
    /// The one for this prompt.
    pub(super) fn of(prompt: &Prompt) -> Self {
        Self::new(prompt.id.as_str(), prompt.text.as_deref().unwrap_or_default())
    }

    /// With a name that a person likes: `a dog barking` is "Dog barking".
    pub(super) fn new(id: &str, text: &str) -> Self {
        let spaced = id.replace(['_', '-'], " ");
        let words = if text.trim().is_empty() { &spaced } else { text.trim() };
        let bare = ["a ", "an ", "the ", "some "].iter().find_map(|article| {
            let (first, rest) = words.split_at_checked(article.len())?;
            first.eq_ignore_ascii_case(article).then(|| rest.trim_start())
        });
        let words = bare.filter(|rest| !rest.is_empty()).unwrap_or(words);
        let name = if words.chars().count() > MAX_NAME {
            words.chars().take(MAX_NAME - 1).chain(['…']).collect()
        } else {
            words.to_owned()
        };
        Self { id: id.into(), name: capital(&name) }
    }
}

/// The payload for a device.
pub(super) fn device(node: &Node, device: DeviceSpec<'_>) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&payload(node, device))
}

/// An entity of a device that is announced by itself.
pub(super) struct EntityPayload {
    pub(super) platform: &'static str,
    /// Its name among those of its device.
    pub(super) key: String,
    pub(super) payload: Vec<u8>,
}

/// The entities of a device, each by itself. Those of the source come first, and only they describe the device: it is one for
/// all of them.
pub(super) fn entities(node: &Node, device: DeviceSpec<'_>) -> serde_json::Result<Vec<EntityPayload>> {
    let of_source = diagnostics(node, device.source).map(|(key, component)| (key.to_owned(), component));
    let of_prompts = device.prompts.iter().flat_map(|prompt| {
        let parts = prompt_entities(node, device, prompt);
        parts.map(|(leaf, component)| (format!("{}_{leaf}", prompt.id), component))
    });
    let of_level = level_entity(node, device).into_iter().filter(|component| component.entity.is_some());
    let of_level = of_level.map(|component| (LEVEL.to_owned(), component));
    let described = device_block(node, device.source);
    let inherited = [online(node), listening(node, device.source)];
    let identified = DeviceBlock { identifiers: described.identifiers.clone(), ..DeviceBlock::default() };
    let write = |(key, Component { platform, entity }): (String, Component<'_>)| {
        let is_of_source = entity.as_ref().is_some_and(|entity| entity.entity_category.is_some());
        let single = SingleEntity {
            device: if is_of_source { &described } else { &identified },
            origin: OriginBlock { name: "clapd", sw_version: &node.version },
            // An entity with an availability of its own has no other.
            availability_mode: "all",
            availability: entity.as_ref().and_then(|entity| entity.availability.is_none().then_some(&inherited)),
            entity,
        };
        let payload = serde_json::to_vec(&shorten_keys(serde_json::to_value(&single)?))?;
        Ok(EntityPayload { platform, key, payload })
    };
    of_source.into_iter().chain(of_level).chain(of_prompts).map(write).collect()
}

/// Platform and key of each of a source's own entities; see `diagnostics` and `level_entity`.
pub(super) fn source_keys() -> [(&'static str, String); 4] {
    ["status", "windows_skipped", "events_dropped", LEVEL].map(|key| ("sensor", key.into()))
}

/// Platform and key of each of a prompt's entities.
pub(super) fn keys(prompt: &str) -> [(&'static str, String); 3] {
    [("sensor", "score"), ("binary_sensor", "state"), ("event", "event")]
        .map(|(platform, leaf)| (platform, format!("{prompt}_{leaf}")))
}

/// Home Assistant's abbreviations (its `abbreviations.py`) of the keys that are used here.
const SHORT_KEYS: [(&str, &str); 27] = [
    ("availability", "avty"),
    ("availability_mode", "avty_mode"),
    ("default_entity_id", "def_ent_id"),
    ("device", "dev"),
    ("device_class", "dev_cla"),
    ("entity_category", "ent_cat"),
    ("event_types", "evt_typ"),
    ("expire_after", "exp_aft"),
    ("icon", "ic"),
    ("identifiers", "ids"),
    ("json_attributes_template", "json_attr_tpl"),
    ("json_attributes_topic", "json_attr_t"),
    ("manufacturer", "mf"),
    ("model", "mdl"),
    ("model_id", "mdl_id"),
    ("name", "name"),
    ("options", "ops"),
    ("origin", "o"),
    ("qos", "qos"),
    ("state_class", "stat_cla"),
    ("state_topic", "stat_t"),
    ("suggested_display_precision", "sug_dsp_prc"),
    ("sw_version", "sw"),
    ("topic", "t"),
    ("unique_id", "uniq_id"),
    ("unit_of_measurement", "unit_of_meas"),
    ("value_template", "val_tpl"),
];

fn shorten_keys(value: Value) -> Value {
    let short =
        |key: String| SHORT_KEYS.iter().find(|(long, _)| *long == key).map_or(key, |(_, short)| (*short).into());
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, value)| (short(key), shorten_keys(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(shorten_keys).collect()),
        other => other,
    }
}

fn payload<'a>(node: &'a Node, device: DeviceSpec<'a>) -> DevicePayload<'a> {
    let mut components = BTreeMap::new();
    for id in device.removed {
        let removed = |platform| Component { platform, entity: None };
        let marks = [("score", removed("sensor")), ("state", removed("binary_sensor")), ("event", removed("event"))];
        components.extend(marks.map(|(leaf, component)| (format!("{id}_{leaf}"), component)));
    }
    for prompt in device.prompts {
        let parts = prompt_entities(node, device, prompt);
        components.extend(parts.map(|(leaf, component)| (format!("{}_{leaf}", prompt.id), component)));
    }
    // A prompt's end in `_score`, `_state` and `_event`.
    components.extend(diagnostics(node, device.source).map(|(id, component)| (id.into(), component)));
    components.extend(level_entity(node, device).map(|component| (LEVEL.into(), component)));
    DevicePayload {
        device: device_block(node, device.source),
        origin: OriginBlock { name: "clapd", sw_version: &node.version },
        availability: [online(node), listening(node, device.source)],
        availability_mode: "all",
        components,
    }
}

fn device_block(node: &Node, source: &str) -> DeviceBlock {
    DeviceBlock {
        identifiers: [identifier(&node.id, source)],
        name: Some(capital(&format!("{} {source}", node.id).replace(['_', '-'], " "))),
        manufacturer: Some("clapd"),
        model: Some("Sound monitor"),
        model_id: Some(node.model.clone()),
        sw_version: Some(node.version.clone()),
    }
}

/// Unavailable where the node has stopped, and where it died.
fn online(node: &Node) -> Availability<'_> {
    let online = message::ONLINE;
    let value_template = format!("{{{{ 'online' if value == '{online}' else 'offline' }}}}");
    Availability { topic: &node.topics.status, value_template }
}

/// Unavailable while no sound comes: `OFF` would say that it is quiet there.
fn listening<'a>(node: &'a Node, source: &str) -> Availability<'a> {
    let value_template = format!(
        "{{{{ 'online' if value_json.sources.get('{source}', {{}}).get('state') in {LISTENING_STATES:?} else 'offline' }}}}"
    )
    .replace('"', "'");
    Availability { topic: &node.topics.health, value_template }
}

fn prompt_entities<'a>(
    node: &Node,
    device: DeviceSpec<'_>,
    prompt: &PromptEntity,
) -> [(&'static str, Component<'a>); 3] {
    let route = node.topics.route(device.source, &prompt.id);
    let ids = [node.id.as_str(), device.source];
    let entity_id = |platform: &str, leaf: &str| entity_id(platform, ids, Some(&prompt.id), leaf);
    let seconds = (device.period * MISSED_SCORES).as_secs_f64().ceil() as u64;
    let score = Entity {
        unique_id: route.score.to_string(),
        default_entity_id: entity_id("sensor", "score"),
        name: format!("{} score", prompt.name),
        state_topic: route.score.to_string(),
        icon: Some("mdi:waveform"),
        // A finer one would be another state, and another row of the recorder's, for each hop.
        value_template: Some("{{ value_json.score | round(1) }}".into()),
        state_class: Some("measurement"),
        suggested_display_precision: Some(1),
        expire_after: Some(seconds.max(LEAST_EXPIRY_S)),
        ..Entity::default()
    };
    let state = Entity {
        unique_id: route.state.to_string(),
        default_entity_id: entity_id("binary_sensor", ""),
        name: prompt.name.clone(),
        state_topic: route.state.to_string(),
        qos: 1,
        device_class: Some("sound"),
        ..Entity::default()
    };
    let event = Entity {
        unique_id: route.event.to_string(),
        default_entity_id: entity_id("event", ""),
        name: format!("{} event", prompt.name),
        state_topic: route.event.to_string(),
        qos: 1,
        icon: Some("mdi:ear-hearing"),
        event_types: vec![message::STARTED, message::ENDED],
        ..Entity::default()
    };
    [
        ("score", Component { platform: "sensor", entity: Some(score) }),
        ("state", Component { platform: "binary_sensor", entity: Some(state) }),
        ("event", Component { platform: "event", entity: Some(event) }),
    ]
}

/// How loud it is. Without a calibration it is no sound pressure, and Home Assistant is not told that it is one.
fn level_entity<'a>(node: &Node, device: DeviceSpec<'_>) -> Option<Component<'a>> {
    let reference = match device.level {
        LevelSensor::None => return None,
        LevelSensor::Removed => return Some(Component { platform: "sensor", entity: None }),
        LevelSensor::Shown(reference) => reference,
    };
    let topic = node.topics.level(device.source);
    // The units are those that Home Assistant has for a sound pressure; it takes any where there is no class.
    let (device_class, unit, icon) = match reference {
        LevelReference::SoundPressure => (Some("sound_pressure"), "dBA", None),
        LevelReference::FullScale => (None, "dBFS", Some("mdi:volume-high")),
    };
    let entity = Entity {
        unique_id: topic.to_string(),
        default_entity_id: entity_id("sensor", [&node.id, device.source], None, "sound_level"),
        name: "Sound level".into(),
        state_topic: topic.to_string(),
        icon,
        device_class,
        value_template: Some("{{ value_json.laeq }}".into()),
        // The other levels, the unit in full, and whether it is calibrated.
        json_attributes_topic: Some(topic.to_string()),
        state_class: Some("measurement"),
        unit_of_measurement: Some(unit),
        suggested_display_precision: Some(1),
        expire_after: Some(60 * u64::from(MISSED_SCORES)),
        ..Entity::default()
    };
    Some(Component { platform: "sensor", entity: Some(entity) })
}

/// What the source does, and, for those who look for a fault, what went missing. None is disabled at first: where Home Assistant
/// removes an entity that is, it clears our topic on its own.
fn diagnostics<'a>(node: &'a Node, source: &str) -> [(&'static str, Component<'a>); 3] {
    let of_source = |key: &str, default: &str| {
        format!("{{{{ value_json.sources.get('{source}', {{}}).get('{key}', {default}) }}}}")
    };
    let entity = |id: &str, name: &str, value_template| {
        let entity = Entity {
            unique_id: format!("{}/{source}/{id}", node.topics.health),
            default_entity_id: entity_id("sensor", [&node.id, source], None, id),
            name: name.into(),
            state_topic: node.topics.health.to_string(),
            qos: 1,
            entity_category: Some("diagnostic"),
            value_template: Some(value_template),
            // It has to show why all others are unavailable.
            availability: Some([online(node)]),
            ..Entity::default()
        };
        Component { platform: "sensor", entity: Some(entity) }
    };
    let count = |component: Component<'a>| {
        let counted = |entity| Entity { state_class: Some("total_increasing"), icon: Some("mdi:counter"), ..entity };
        Component { entity: component.entity.map(counted), ..component }
    };
    let mut status = entity("status", "Status", of_source("state", "'ended'"));
    if let Some(entity) = &mut status.entity {
        entity.device_class = Some("enum");
        entity.options = LISTENING_STATES.into_iter().chain(OTHER_STATES).collect();
        entity.icon = Some("mdi:microphone");
        // Too faint, a dead channel: with the remedy, for whoever opens the entity.
        entity.json_attributes_topic = Some(entity.state_topic.clone());
        let warnings =
            format!("{{{{ {{'warnings': value_json.sources.get('{source}', {{}}).get('warnings', [])}} | tojson }}}}");
        entity.json_attributes_template = Some(warnings);
    }
    let skipped = entity("windows_skipped", "Windows skipped", of_source("windows_skipped", "0"));
    let dropped = entity("events_dropped", "Events dropped", "{{ value_json.events_dropped }}".into());
    [("status", status), ("windows_skipped", count(skipped)), ("events_dropped", count(dropped))]
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(id: &str) -> Node {
        Node { id: id.into(), topics: Topics::new(id), version: "0.1.0".into(), model: "mini 1".into() }
    }

    fn written(id: &str, source: &str, prompts: &[PromptEntity]) -> Value {
        let (removed, period) = (&["cat".into()], Duration::from_millis(2_500));
        let device_of = DeviceSpec { source, prompts, removed, period, level: LevelSensor::None };
        serde_json::from_slice(&device(&node(id), device_of).unwrap()).unwrap()
    }

    #[test]
    fn discovery_is_frozen() {
        let payload = written("kitchen", "left-mic", &[PromptEntity::new("dog", "a dog barking")]);
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/discovery.json")).unwrap();
        assert_eq!(payload, golden, "{payload:#}");
    }

    #[test]
    fn entities_by_themselves_are_frozen() {
        let prompts = [PromptEntity::new("dog", "a dog barking")];
        let (source, period, level) = ("left-mic", Duration::from_secs(1), LevelSensor::None);
        let device = DeviceSpec { source, prompts: &prompts, removed: &[], period, level };
        let parts = entities(&node("kitchen"), device).unwrap();
        let names: Vec<_> = parts.iter().map(|part| (part.platform, part.key.as_str())).collect();
        let expected = ["status", "windows_skipped", "events_dropped"].map(|key| ("sensor", key));
        assert_eq!(names[..3], expected);
        assert_eq!(names[3..], keys("dog").each_ref().map(|(platform, key)| (*platform, key.as_str())));
        let text = |part: &EntityPayload| String::from_utf8(part.payload.clone()).unwrap();
        let listening = r#"{"t":"clapd/kitchen/health","val_tpl":"{{ 'online' if value_json.sources.get('left-mic', {}).get('state') in ['live', 'silent', 'clipping', 'recovering'] else 'offline' }}"}"#;
        let online = r#"{"t":"clapd/kitchen/status","val_tpl":"{{ 'online' if value == 'online' else 'offline' }}"}"#;
        let event = format!(
            r#"{{"avty":[{online},{listening}],"avty_mode":"all","def_ent_id":"event.kitchen_left_mic_dog_a61beb2e","dev":{{"ids":["clapd/kitchen/left-mic"]}},"evt_typ":["started","ended"],"ic":"mdi:ear-hearing","name":"Dog barking event","o":{{"name":"clapd","sw":"0.1.0"}},"qos":1,"stat_t":"clapd/kitchen/left-mic/dog/event","uniq_id":"clapd/kitchen/left-mic/dog/event"}}"#
        );
        let object = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(object(&text(&parts[5])), object(&event));
        let status = object(&text(&parts[0]));
        assert_eq!(status["dev"]["name"], "Kitchen left mic");
        assert_eq!(status["json_attr_t"], "clapd/kitchen/health");
        assert_eq!(
            status["json_attr_tpl"],
            "{{ {'warnings': value_json.sources.get('left-mic', {}).get('warnings', [])} | tojson }}"
        );
        assert_eq!(
            (&status["avty"][0]["t"], status["avty"].as_array().map(Vec::len)),
            (&"clapd/kitchen/status".into(), Some(1))
        );
        assert!(parts.iter().all(|part| part.payload.len() < 900), "they are for brokers that take little");
    }

    #[test]
    fn the_level_sensor_is_frozen_and_claims_no_sound_pressure_without_a_calibration() {
        let minute = Duration::from_secs(60);
        let of = |level| {
            let device_of = DeviceSpec { source: "mic", prompts: &[], removed: &[], period: minute, level };
            let whole: Value = serde_json::from_slice(&device(&node("kitchen"), device_of).unwrap()).unwrap();
            let parts = entities(&node("kitchen"), device_of).unwrap();
            (whole["components"]["level"].clone(), parts.into_iter().find(|part| part.key == LEVEL))
        };
        let (calibrated, part) = of(LevelSensor::Shown(LevelReference::SoundPressure));
        let expected = serde_json::json!({
            "platform": "sensor", "unique_id": "clapd/kitchen/mic/level", "default_entity_id": "sensor.kitchen_mic_sound_level",
            "name": "Sound level", "state_topic": "clapd/kitchen/mic/level", "qos": 0, "device_class": "sound_pressure",
            "value_template": "{{ value_json.laeq }}", "json_attributes_topic": "clapd/kitchen/mic/level",
            "state_class": "measurement", "unit_of_measurement": "dBA", "suggested_display_precision": 1, "expire_after": 300
        });
        assert_eq!(calibrated, expected);
        let part: Value = serde_json::from_slice(&part.unwrap().payload).unwrap();
        assert_eq!((&part["unit_of_meas"], &part["dev_cla"]), (&"dBA".into(), &"sound_pressure".into()));
        let (uncalibrated, _) = of(LevelSensor::Shown(LevelReference::FullScale));
        let seen = (&uncalibrated["unit_of_measurement"], &uncalibrated["device_class"], &uncalibrated["expire_after"]);
        assert_eq!(seen, (&"dBFS".into(), &Value::Null, &300.into()));
        let (removed, part) = of(LevelSensor::Removed);
        assert!(removed == serde_json::json!({ "platform": "sensor" }) && part.is_none());
        assert_eq!(of(LevelSensor::None).0, Value::Null);
    }

    #[test]
    fn names_are_as_people_write_them() {
        let long = "word ".repeat(20);
        for (text, name) in [
            ("a dog barking", "Dog barking"),
            ("The old clock", "Old clock"),
            ("a", "A"),
            ("applause", "Applause"),
            ("some  birds", "Birds"),
            ("öffnende Tür", "Öffnende Tür"),
            ("犬の声", "犬の声"),
            ("", "Bell 1"),
            (&long, "Word word word word word word word word word word word word…"),
        ] {
            assert_eq!(PromptEntity::new("bell_1", text).name, name, "{text:?}");
        }
    }

    #[test]
    fn a_thousand_prompts_are_within_what_brokers_take() {
        let prompts: Vec<PromptEntity> =
            (0..1_000).map(|n| PromptEntity::new(&format!("sound_{n}"), "a dog barking")).collect();
        let (period, level) = (Duration::from_secs(1), LevelSensor::None);
        let device_of = DeviceSpec { source: "mic", prompts: &prompts, removed: &[], period, level };
        assert!(device(&node("kitchen"), device_of).unwrap().len() < 1_000_000);
    }

    proptest! {
        #[test]
        fn ids_are_what_home_assistant_takes(node_id in "[A-Za-z0-9_-]{1,64}", source in "[A-Za-z0-9_-]{1,64}", id in "[A-Za-z0-9_-]{1,64}") {
            let payload = written(&node_id, &source, &[PromptEntity::new(&id, "x")]);
            let mut unique = std::collections::BTreeSet::new();
            for (key, component) in payload["components"].as_object().unwrap() {
                prop_assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'));
                let Some(entity_id) = component.get("default_entity_id").and_then(Value::as_str) else { continue };
                let (platform, object) = entity_id.split_once('.').unwrap();
                prop_assert_eq!(component["platform"].as_str(), Some(platform));
                let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
                prop_assert!(!object.is_empty() && object.bytes().all(plain), "{}", object);
                prop_assert!(!object.starts_with('_') && !object.ends_with('_') && !object.contains("__"), "{}", object);
                prop_assert!(unique.insert(component["unique_id"].as_str().unwrap().to_owned()));
            }
            prop_assert!(unique.len() >= 3);
        }
    }
}
