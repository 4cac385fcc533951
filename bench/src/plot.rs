//! Pictures for the page: lines over an axis, and bars.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

/// A line: its name, and its points.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// A picture of lines.
pub struct Lines<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
    /// Whether the y axis is logarithmic; its values must then be above zero.
    pub logarithmic: bool,
    pub lines: &'a [Line],
}

/// A picture of bars: groups of one bar for each name.
pub struct Bars<'a> {
    pub title: &'a str,
    pub y: &'a str,
    /// The arms' names; the first is ours.
    pub names: &'a [&'a str],
    pub groups: &'a [Group],
}

/// A group's name, and a value for each arm; where an arm has none, a dash stands instead of its bar.
pub type Group = (String, Vec<Option<f64>>);

const SIZE: (u32, u32) = (820, 360);
const FONT: (&str, u32) = ("sans-serif", 13);
/// Told apart without red and green; the first is ours. After Okabe and Ito.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(150, 130, 60),
];

type Drawn = Result<(), Box<dyn Error>>;

impl Lines<'_> {
    /// Writes the picture into a file.
    pub fn write(&self, path: &Path) -> Drawn {
        let names = self.lines.iter().map(|line| line.name.as_str());
        let (whole, area) = canvas(path, self.title, names)?;
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (left, right) = bounds(points().map(|point| point.0));
        let (bottom, top) = bounds(points().map(|point| point.1));
        let x = left..right;
        let mut builder = chart(&area);
        // The two kinds of axis are two types.
        macro_rules! draw {
            ($y:expr) => {{
                let mut chart = builder.build_cartesian_2d(x, $y)?;
                let mut mesh = chart.configure_mesh();
                let mesh = mesh.label_style(FONT).light_line_style(WHITE.mix(0.0));
                mesh.x_desc(self.x).y_desc(self.y).draw()?;
                for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
                    let series =
                        LineSeries::new(line.points.iter().copied(), colour.stroke_width(2));
                    chart.draw_series(series)?;
                }
            }};
        }
        match self.logarithmic {
            true => draw!((bottom..top * 1.5).log_scale()),
            false => draw!(0.0..top * 1.1),
        }
        whole.present()?;
        Ok(())
    }
}

impl Bars<'_> {
    /// Writes the picture into a file.
    pub fn write(&self, path: &Path) -> Drawn {
        let (whole, area) = canvas(path, self.title, self.names.iter().copied())?;
        let values = self.groups.iter().flat_map(|group| &group.1);
        let (_, top) = bounds(values.copied().flatten());
        let width = self.names.len() as f64 + 1.0;
        let mut builder = chart(&area);
        let x = 0.0..width * self.groups.len() as f64;
        let mut chart = builder.build_cartesian_2d(x, 0.0..top * 1.1)?;
        let group = |x: &f64| {
            let at = (x / width) as usize;
            let from_middle = x - (at as f64 + 0.5) * width;
            let is_middle = (-0.5..0.5).contains(&from_middle);
            match self.groups.get(at) {
                Some(group) if is_middle => group.0.clone(),
                _ => String::new(),
            }
        };
        let mut mesh = chart.configure_mesh();
        let mesh = mesh.label_style(FONT).disable_x_mesh().y_desc(self.y);
        let mesh = mesh
            .light_line_style(WHITE.mix(0.0))
            .x_label_formatter(&group);
        mesh.x_labels((width as usize) * self.groups.len() + 1)
            .draw()?;
        for (arm, colour) in COLOURS.iter().cycle().take(self.names.len()).enumerate() {
            let of_arm = self.groups.iter().enumerate().map(|(at, group)| {
                let left = at as f64 * width + 0.5 + arm as f64;
                (left, group.1.get(arm).copied().flatten())
            });
            let (bars, dashes): (Vec<_>, Vec<_>) = of_arm.partition(|(_, value)| value.is_some());
            chart.draw_series(bars.into_iter().map(|(left, value)| {
                let top = value.unwrap_or_default();
                Rectangle::new([(left, 0.0), (left + 0.9, top)], colour.filled())
            }))?;
            chart.draw_series(dashes.into_iter().map(|(left, _)| {
                EmptyElement::at((left + 0.1, 0.0)) + Text::new("–", ABOVE_THE_AXIS, FONT)
            }))?;
        }
        whole.present()?;
        Ok(())
    }
}

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Returns the whole picture, with its title and the colours' names, and what is left of it for the chart.
fn canvas<'a, 'n>(
    path: &'a Path,
    title: &str,
    names: impl ExactSizeIterator<Item = &'n str>,
) -> Result<(Canvas<'a>, Canvas<'a>), Box<dyn Error>> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let whole = SVGBackend::new(path, SIZE).into_drawing_area();
    whole.fill(&WHITE)?;
    let rows = names.len().div_ceil(NAMES_IN_A_ROW) as i32;
    let (legend, chart) = whole
        .titled(title, ("sans-serif", 18))?
        .split_vertically(rows * ROW + ROW / 2);
    let width = (SIZE.0 as i32 - LEFT) / NAMES_IN_A_ROW as i32;
    for (at, (name, colour)) in names.zip(COLOURS.iter().cycle()).enumerate() {
        let x = LEFT + (at % NAMES_IN_A_ROW) as i32 * width;
        let y = ROW / 2 + (at / NAMES_IN_A_ROW) as i32 * ROW;
        legend.draw(&Rectangle::new([(x, y), (x + 10, y + 10)], colour.filled()))?;
        legend.draw(&Text::new(name, (x + 16, y), FONT))?;
    }
    Ok((whole, chart))
}

const ABOVE_THE_AXIS: (i32, i32) = (0, -13);
const NAMES_IN_A_ROW: usize = 4;
/// The height of a row of names, and where it begins.
const ROW: i32 = 18;
const LEFT: i32 = 80;

fn chart<'a, 'b>(area: &'b Canvas<'a>) -> ChartBuilder<'b, 'b, SVGBackend<'a>>
where
    'a: 'b,
{
    let mut builder = ChartBuilder::on(area);
    builder
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(70);
    builder
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = values.fold((f64::MAX, f64::MIN), |(least, most), value| {
        (least.min(value), most.max(value))
    });
    match least < most {
        true => (least, most),
        // One value, or none: an axis needs a length.
        false => (0.0, if most > 0.0 { most } else { 1.0 }),
    }
}
