//! Draws a line chart with a legend into an SVG file.

use std::{io, path::Path};

use plotters::{
    coord::Shift,
    element::DashedPathElement,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::failure::While;

/// The width of images in a README.
const WIDTH: u32 = 880;
const HEIGHT: u32 = 480;

/// Width of the legend.
const LEGEND: i32 = 190;

/// Smallest range of a logarithmic axis, so that small differences look small.
const DECADE: f64 = 1.0;

const FONT: &str = "sans-serif";

/// The scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Log,
}

/// One of the two axes.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) scale: Scale,
    /// Values and labels. If empty, round numbers are labelled.
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Axis {
    pub(crate) fn log(label: &str) -> Self {
        Self {
            label: label.into(),
            scale: Scale::Log,
            ticks: Vec::new(),
        }
    }

    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(1e-9).log10(),
        }
    }
}

/// One line of the chart.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) has_markers: bool,
}

/// A chart.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

/// The style of a line.
#[derive(Clone, Copy)]
struct Look {
    color: RGBColor,
    width: u32,
    is_dashed: bool,
}

impl Chart {
    pub(crate) fn draw(&self, path: &Path) -> io::Result<()> {
        let root = SVGBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
        self.draw_on(&root)
            .and_then(|()| root.present().map_err(|error| error.to_string()))
            .context(format_args!("drawing {}", path.display()))
    }

    fn draw_on(&self, root: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), String> {
        let message = |error: &dyn std::fmt::Display| error.to_string();
        root.fill(&WHITE).map_err(|error| message(&error))?;
        let (left, right) = root.split_horizontally(WIDTH as i32 - LEGEND);
        let places = self.places();
        let all = || places.iter().flatten();
        let x = range(all().map(|point| point.0), 0.0);
        let y = range(all().map(|point| point.1), DECADE);
        let ticks = [self.ticks(&self.x, &x), self.ticks(&self.y, &y)];
        let mut chart = ChartBuilder::on(&left)
            .caption(&self.title, (FONT, 22))
            .margin(12)
            .x_label_area_size(46)
            .y_label_area_size(66)
            .build_cartesian_2d(x.clone(), y.clone())
            .map_err(|error| message(&error))?;
        // Only the names of the axes. The labels of the ticks are drawn below.
        chart
            .configure_mesh()
            .disable_mesh()
            .x_labels(0)
            .y_labels(0)
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .axis_desc_style((FONT, 15))
            .draw()
            .map_err(|error| message(&error))?;
        let pale = BLACK.mix(0.12);
        let style = |h, v| (FONT, 13).into_font().color(&BLACK).pos(Pos::new(h, v));
        let area = chart.plotting_area();
        for (at, label) in &ticks[0] {
            let line = PathElement::new(vec![(*at, y.start), (*at, y.end)], pale);
            area.draw(&line).map_err(|error| message(&error))?;
            let text = EmptyElement::at((*at, y.start))
                + Text::new(label.clone(), (0, 6), style(HPos::Center, VPos::Top));
            area.draw(&text).map_err(|error| message(&error))?;
        }
        for (at, label) in &ticks[1] {
            let line = PathElement::new(vec![(x.start, *at), (x.end, *at)], pale);
            area.draw(&line).map_err(|error| message(&error))?;
            let text = EmptyElement::at((x.start, *at))
                + Text::new(label.clone(), (-6, 0), style(HPos::Right, VPos::Center));
            area.draw(&text).map_err(|error| message(&error))?;
        }
        let looks = looks(&self.lines);
        for ((line, look), points) in self.lines.iter().zip(&looks).zip(&places) {
            let stroke = look.color.stroke_width(look.width);
            let drawn = if look.is_dashed {
                area.draw(&DashedPathElement::new(points.clone(), 6, 4, stroke))
            } else {
                area.draw(&PathElement::new(points.clone(), stroke))
            };
            drawn.map_err(|error| message(&error))?;
            if line.has_markers {
                for point in points {
                    let marker = Circle::new(*point, 3, look.color.filled());
                    area.draw(&marker).map_err(|error| message(&error))?;
                }
            }
        }
        self.draw_legend(&right, &looks)
    }

    /// Draws the legend beside the chart, so that it covers no line.
    fn draw_legend(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        looks: &[Look],
    ) -> Result<(), String> {
        for (at, (line, look)) in self.lines.iter().zip(looks).enumerate() {
            let y = 56 + at as i32 * 22;
            let stroke = look.color.stroke_width(look.width);
            let dash = vec![(0, y), (26, y)];
            let drawn = if look.is_dashed {
                area.draw(&DashedPathElement::new(dash, 6, 4, stroke))
            } else {
                area.draw(&PathElement::new(dash, stroke))
            };
            drawn.map_err(|error| error.to_string())?;
            let style = (FONT, 13).into_font().color(&BLACK);
            let style = style.pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(line.name.clone(), (34, y), style))
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The positions of the points of each line.
    fn places(&self) -> Vec<Vec<(f64, f64)>> {
        let place = |(x, y): &(f64, f64)| (self.x.place(*x), self.y.place(*y));
        let of_line = |line: &Line| line.points.iter().map(place).collect();
        self.lines.iter().map(of_line).collect()
    }

    /// The given ticks, or 1, 2 and 5 times each power of ten.
    fn ticks(&self, axis: &Axis, range: &std::ops::Range<f64>) -> Vec<(f64, String)> {
        if !axis.ticks.is_empty() {
            let place = |(at, label): &(f64, String)| (axis.place(*at), label.clone());
            let is_inside = |(at, _): &(f64, String)| (range.start..=range.end).contains(at);
            return axis.ticks.iter().map(place).filter(is_inside).collect();
        }
        let steps: &[f64] = if range.end - range.start > 3.0 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let mut ticks = Vec::new();
        for power in -9..=12 {
            for step in steps {
                let value = step * 10f64.powi(power);
                let at = axis.place(value);
                if (range.start..=range.end).contains(&at) {
                    ticks.push((at, plain(value)));
                }
            }
        }
        ticks
    }
}

/// The range of the values, with a margin on both sides, and at least `least` wide.
fn range(values: impl Iterator<Item = f64>, least: f64) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let margin = ((high - low) * 0.04)
        .max(0.02)
        .max((least - (high - low)) / 2.0);
    low - margin..high + margin
}

/// A number as a label: `0.02`, `5`, `20 000`.
fn plain(value: f64) -> String {
    if value < 1.0 {
        let text = format!("{value:.9}");
        return text.trim_end_matches('0').to_owned();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 && digits.len() > 4 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Bare sockets are gray, the library is blue and green, other programs have warm colors. Lines of variants that spin, or write
/// frames one by one, are dashed.
fn looks(lines: &[Line]) -> Vec<Look> {
    const COOL: [RGBColor; 5] = [
        RGBColor(0, 92, 200),
        RGBColor(0, 150, 110),
        RGBColor(90, 60, 190),
        RGBColor(0, 170, 200),
        RGBColor(70, 130, 90),
    ];
    const WARM: [RGBColor; 6] = [
        RGBColor(214, 60, 40),
        RGBColor(232, 150, 0),
        RGBColor(200, 50, 140),
        RGBColor(140, 90, 40),
        RGBColor(250, 110, 110),
        RGBColor(120, 130, 0),
    ];
    let mut warm = WARM.into_iter().cycle();
    let look = |line: &Line| {
        let name = &line.name;
        let is_dashed = name.ends_with("/spin") || name == "raw/write";
        let color = match name.split('/').next() {
            Some("raw") => RGBColor(120, 120, 120),
            Some("handler") => COOL[0],
            Some("inbox") => COOL[1],
            Some("loop") => COOL[2],
            Some("feed") => COOL[3],
            Some("feed-with") => COOL[4],
            _ => warm.next().unwrap_or(BLACK),
        };
        let is_ours = COOL.contains(&color);
        Look {
            color,
            width: if is_ours { 3 } else { 2 },
            is_dashed,
        }
    };
    lines.iter().map(look).collect()
}
