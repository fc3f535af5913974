//! What a page consists of. Pages are made of these, and one template turns them into HTML.

use askama::Template;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tripod_model::Time;

use crate::lang::Lang;
use crate::pages::nav;

/// What is left as it is in a part of a path.
const PART: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[derive(Template)]
#[template(path = "login.html")]
struct LogIn<'a> {
    ui: &'a Ui,
    problem: &'a str,
}

/// The page that asks for a token, with what was wrong with the last one.
pub(crate) fn login_page(ui: &Ui, problem: &str) -> String {
    // Writing to memory does not fail.
    LogIn { ui, problem }.render().unwrap_or_default()
}

/// How a page is shown to this browser.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ui {
    /// What stands before every path.
    pub(crate) base: String,
    pub(crate) cluster: String,
    pub(crate) lang: Lang,
    pub(crate) theme: &'static str,
    /// What forms carry.
    pub(crate) csrf: String,
    /// The namespace that lists are narrowed to; empty for all.
    pub(crate) namespace: String,
    /// Namespaces to choose from.
    pub(crate) namespaces: Vec<(String, String)>,
    /// First part of the path, for the side bar.
    pub(crate) here: String,
    /// The address of this page.
    pub(crate) uri: String,
    /// There is a session that can be ended.
    pub(crate) session: bool,
    /// Words searched for.
    pub(crate) search: String,
    /// The time that ages are counted to.
    pub(crate) now: Time,
}

impl Ui {
    /// Text in the language of the page.
    pub(crate) fn t<'a>(&self, english: &'a str) -> &'a str {
        self.lang.t(english)
    }

    /// An address below the base, of parts that are escaped.
    pub(crate) fn url(&self, parts: &[&str]) -> String {
        let mut url = self.base.clone();
        for part in parts {
            url.push('/');
            url.extend(utf8_percent_encode(part, PART));
        }
        if parts.is_empty() {
            url.push('/');
        }
        url
    }

    /// An address of a list, narrowed to the chosen namespace.
    pub(crate) fn list_url(&self, parts: &[&str]) -> String {
        let url = self.url(parts);
        if self.namespace.is_empty() {
            return url;
        }
        format!("{url}?namespace={}", utf8_percent_encode(&self.namespace, PART))
    }

    fn age(&self, at: &Time) -> String {
        age(*at, self.now)
    }

    fn asset(&self, name: &str) -> String {
        format!("{}/assets/{}/{name}", self.base, crate::reply::assets_mark())
    }

    fn nav(&self) -> Vec<nav::Group> {
        nav::groups(self)
    }
}

/// How good a state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// On its way.
    Busy,
    /// Needs somebody.
    Bad,
    /// Neither.
    #[default]
    Calm,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Busy => "busy",
            Self::Bad => "bad",
            Self::Calm => "calm",
        }
    }
}

/// A value in a table or in a list of facts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    /// Words.
    Text(String),
    /// A number, an address, an image.
    Code(String),
    /// Leads somewhere: address, text.
    Link(String, String),
    /// Several of them.
    Links(Vec<(String, String)>),
    /// Short words side by side.
    Tags(Vec<String>),
    /// A state, and why it is so (may be empty).
    State(Tone, String, String),
    /// A moment, shown as an age.
    Ago(Option<Time>),
    /// Part of a whole in percent, with words.
    Bar(f64, String),
    /// Each on a line of its own.
    Lines(Vec<String>),
}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn code(text: impl Into<String>) -> Self {
        Self::Code(text.into())
    }
}

/// A table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) title: String,
    /// How many there are in all, where the table shows a part.
    pub(crate) total: Option<usize>,
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<Cell>>,
    /// What is said when there are none.
    pub(crate) empty: String,
    /// Where more of it is.
    pub(crate) next: Option<String>,
}

impl Table {
    /// The heading of a column.
    fn label(&self, column: &usize) -> &str {
        self.head.get(*column).map_or("", String::as_str)
    }
}

/// A number with words, leading somewhere.
#[derive(Debug, Clone)]
pub(crate) struct Card {
    pub(crate) href: String,
    pub(crate) label: String,
    pub(crate) value: String,
    pub(crate) note: String,
    pub(crate) tone: Tone,
}

/// A line over time.
#[derive(Debug, Clone)]
pub(crate) struct Graph {
    pub(crate) label: String,
    pub(crate) value: String,
    /// Points of the line in a box of 300 by 60, `x,y x,y …`.
    pub(crate) points: String,
    /// The same, closed along the bottom.
    pub(crate) area: String,
}

/// Something that can be done.
#[derive(Debug, Clone)]
pub(crate) struct Action {
    pub(crate) label: String,
    pub(crate) href: String,
    /// Text above the button; with it the button has to be unfolded first.
    pub(crate) ask: String,
    pub(crate) danger: bool,
    pub(crate) fields: Vec<Field>,
}

/// A field of a form.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) label: String,
    pub(crate) value: String,
    /// `number`, `text`, `hidden`, `checkbox`.
    pub(crate) kind: &'static str,
}

/// A part of a page.
#[derive(Debug, Clone)]
pub(crate) enum Section {
    Cards(Vec<Card>),
    Facts(String, Vec<(String, Cell)>),
    Table(Table),
    Graphs(String, Vec<Graph>),
    /// Tone, title, text.
    Notice(Tone, String, String),
    /// Title and text as it is.
    Text(String, String),
    /// Hidden until asked for: name and value.
    Hidden(String, Vec<(String, String)>),
    /// A form with a text: address, text.
    Editor(String, String),
    /// Ways to look at the same thing, side by side.
    Choices(Vec<Tab>),
    /// A log: address of its stream, what there was so far.
    Log(String, String),
    /// A terminal: address of its socket.
    Terminal(String),
}

/// A way to look at an object.
#[derive(Debug, Clone)]
pub(crate) struct Tab {
    pub(crate) label: String,
    pub(crate) href: String,
    pub(crate) here: bool,
}

/// A page.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    pub(crate) title: String,
    /// What the title's kind is called.
    pub(crate) kind: String,
    /// Way back: address, text.
    pub(crate) trail: Vec<(String, String)>,
    pub(crate) tabs: Vec<Tab>,
    pub(crate) actions: Vec<Action>,
    pub(crate) sections: Vec<Section>,
    /// Kinds whose changes concern this page, with commas; empty for a page that stands still.
    pub(crate) live: String,
}

/// A page with a side bar, or only what changes in it.
#[derive(Template)]
#[template(path = "page.html")]
struct PageTemplate<'a> {
    ui: &'a Ui,
    page: &'a Page,
}

#[derive(Template)]
#[template(path = "page.html", block = "content")]
struct FragmentTemplate<'a> {
    ui: &'a Ui,
    page: &'a Page,
}

/// The HTML of a page, or of its changing part.
pub(crate) fn render(ui: &Ui, page: &Page, fragment: bool) -> String {
    let rendered = if fragment {
        FragmentTemplate { ui, page }.render()
    } else {
        PageTemplate { ui, page }.render()
    };
    // Formatting into memory does not fail.
    rendered.unwrap_or_default()
}

/// How long ago, in the two largest units, as kubectl shows it.
fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = (now.as_second() - at.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        172_800..691_200 if hours % 24 != 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let at = Timestamp::UNIX_EPOCH;
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (130, "2m10s"),
            (3600, "60m"),
            (10_800, "3h"),
            (90_000, "25h"),
            (200_000, "2d7h"),
            (900_000, "10d"),
        ] {
            assert_eq!(age(at, Timestamp::from_second(seconds).unwrap()), text);
        }
    }

    #[test]
    fn hostile_text_stays_text() {
        let nasty = r#""><script>alert(1)</script>'&"#.to_owned();
        let page = Page {
            title: nasty.clone(),
            kind: nasty.clone(),
            trail: vec![("/x".into(), nasty.clone())],
            sections: vec![
                Section::Facts(nasty.clone(), vec![(nasty.clone(), Cell::text(nasty.clone()))]),
                Section::Table(Table {
                    title: nasty.clone(),
                    head: vec![nasty.clone()],
                    rows: vec![vec![
                        Cell::Link("/y".into(), nasty.clone()),
                        Cell::State(Tone::Bad, nasty.clone(), nasty.clone()),
                        Cell::Tags(vec![nasty.clone()]),
                        Cell::Lines(vec![nasty.clone()]),
                        Cell::Code(nasty.clone()),
                    ]],
                    ..Table::default()
                }),
                Section::Editor("/e".into(), nasty.clone()),
                Section::Log("/l".into(), nasty.clone()),
                Section::Hidden(nasty.clone(), vec![(nasty.clone(), nasty.clone())]),
            ],
            ..Page::default()
        };
        let ui = Ui {
            search: nasty.clone(),
            namespaces: vec![(nasty.clone(), nasty.clone())],
            uri: nasty,
            ..Ui::default()
        };
        let html = render(&ui, &page, false);
        assert!(!html.contains("<script>") && !html.contains("'&"), "{html}");
        assert!(!html.contains(" style="), "the policy forbids styles in the page");
        assert_eq!(ui.url(&["pods", "a/b", "c?d#e"]), "/pods/a%2Fb/c%3Fd%23e");
    }
}
