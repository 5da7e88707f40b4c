"""Pages that are written elsewhere: the executed notebooks, how to contribute, and the changes."""

from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config) -> Files:
    """Add them to the pages of this folder."""
    pages = {"contributing.md": ROOT / "CONTRIBUTING.md", "changes.md": ROOT / "CHANGELOG.md"}
    pages |= {
        f"course/{page.name}": page
        for page in sorted((ROOT / "results" / "notebooks").glob("*.html"))
    }
    pages |= {"result.jpg": ROOT / "results" / "gallery" / "demo.jpg"}
    for name, path in pages.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
