//! A writer of XML: an element a line, attributes escaped, end tags that cannot be forgotten.

use std::fmt::{Display, Write};

/// A document in the making.
#[derive(Debug)]
pub(super) struct Xml {
    out: String,
    depth: usize,
}

/// An element whose start tag is being written; `empty`, `with` or `text` ends it.
#[derive(Debug)]
#[must_use = "an element must be ended"]
pub(super) struct Element<'x> {
    xml: &'x mut Xml,
    name: &'static str,
}

impl Xml {
    /// A document that holds its declaration only.
    pub(super) fn document() -> Self {
        Self { out: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned(), depth: 0 }
    }

    /// Begins an element.
    pub(super) fn element(&mut self, name: &'static str) -> Element<'_> {
        self.indent();
        self.out.push('<');
        self.out.push_str(name);
        Element { xml: self, name }
    }

    /// The text.
    pub(super) fn finish(self) -> String {
        self.out
    }

    fn indent(&mut self) {
        self.out.extend(std::iter::repeat_n("  ", self.depth));
    }
}

impl Element<'_> {
    /// Adds an attribute.
    pub(super) fn attr(self, name: &'static str, value: impl Display) -> Self {
        self.xml.out.extend([" ", name, "=\""]);
        let _ = write!(Escaping(&mut self.xml.out), "{value}"); // into a String, which cannot fail
        self.xml.out.push('"');
        self
    }

    /// Adds an attribute, where there is a value.
    pub(super) fn attr_if(self, name: &'static str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.attr(name, value),
            None => self,
        }
    }

    /// Ends the element; it has no content.
    pub(super) fn empty(self) {
        self.xml.out.push_str("/>\n");
    }

    /// Ends the element after what `children` writes.
    pub(super) fn with(self, children: impl FnOnce(&mut Xml)) {
        self.xml.out.push_str(">\n");
        self.xml.depth += 1;
        children(self.xml);
        self.xml.depth -= 1;
        self.xml.indent();
        self.xml.out.extend(["</", self.name, ">\n"]);
    }
}

/// Writes a value as it may stand between double quotes (XML 1.0 §2.3, §2.4, §3.3.3).
struct Escaping<'a>(&'a mut String);

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        // Nearly all that an MPD says; 0xef begins the two characters at the end of the basic plane that no document can hold, and others.
        let plain = |byte: &u8| *byte >= b' ' && !matches!(byte, b'&' | b'<' | b'>' | b'"' | 0xef);
        if text.as_bytes().iter().all(plain) {
            self.0.push_str(text);
            return Ok(());
        }
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                // A reader would make spaces of them.
                '\t' | '\n' | '\r' => write!(self.0, "&#{};", u32::from(c))?,
                // No XML 1.0 document can hold these, escaped or not (§2.2).
                c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn written(value: &str) -> String {
        let mut xml = Xml::document();
        xml.element("a").attr_if("none", None::<u32>).with(|xml| xml.element("b").attr("value", value).empty());
        xml.finish()
    }

    #[test]
    fn elements_nest() {
        assert_eq!(written("1"), "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a>\n  <b value=\"1\"/>\n</a>\n");
    }

    proptest::proptest! {
        #[test]
        fn any_value_comes_back(value in proptest::collection::vec(proptest::char::any(), 0..40)) {
            let value: String = value.into_iter().collect();
            let text = written(&value);
            let tree = roxmltree::Document::parse(&text).unwrap();
            let back = tree.root_element().first_element_child().unwrap().attribute("value").unwrap().to_owned();
            let fits = |c: char| if (c < ' ' && !"\t\n\r".contains(c)) || matches!(c, '\u{fffe}' | '\u{ffff}') { '\u{fffd}' } else { c };
            assert_eq!(back, value.chars().map(fits).collect::<String>());
        }
    }
}
