"""Makes the two-page sample document, a PDF written by hand: text in the standard fonts, and a drawing."""

import math

WIDTH, HEIGHT = 504, 661  # 7 by 9.18 inches, in points: the page of a technical book


def text(x: float, y: float, size: float, words: str, font: str = "F1") -> str:
    escaped = words.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    return f"BT /{font} {size} Tf {x:.1f} {y:.1f} Td ({escaped}) Tj ET"


def cover() -> list[str]:
    """The first page: a title, and a ship of containers on waves."""
    drawing = ["0.11 0.27 0.49 rg", f"0 0 {WIDTH} {HEIGHT} re f"]
    colours = ["0.93 0.49 0.19", "0.98 0.80 0.28", "0.44 0.68 0.28", "0.75 0.24 0.24"]
    for row in range(3):
        for column in range(6 - row):
            drawing += [f"{colours[(row * 2 + column) % 4]} rg", f"{130 + row * 20 + column * 41} {250 + row * 28} 38 25 re f"]
    drawing += ["0.85 0.88 0.92 rg", "90 245 m 414 245 l 380 190 l 130 190 l h f"]
    for wave in range(3):
        points = " ".join(f"{x} {180 - wave * 25 + 8 * math.sin(x / 22 + wave):.1f} {'m' if x == 0 else 'l'}" for x in range(0, WIDTH + 1, 7))
        drawing += ["0.45 0.66 0.87 RG 3 w", points + " S"]
    return [*drawing, "1 1 1 rg", text(60, 540, 44, "Ships and Boxes", "F2"),
            text(62, 505, 17, "A sample document of two pages"), text(62, 60, 11, "Page 1")]


def contents() -> list[str]:
    """The second page: headings, lines of text and a table."""
    lines = ["0 0 0 rg", text(60, 590, 24, "What a rasteriser does", "F2")]
    paragraph = [
        "A page of this document is a list of instructions: place this text, fill this shape.",
        "A rasteriser follows them and leaves a picture, at whatever width it is asked for.",
        "Doing so for each reader would be slow, and doing so for all pages beforehand is",
        "wasteful: most are never looked at. So it is done when a page is first wanted, and",
        "the document is kept nearby for the next time.",
    ]
    lines += [text(60, 555 - 16 * i, 11, line) for i, line in enumerate(paragraph)]
    lines += ["0.3 0.3 0.3 RG 0.8 w"]
    for row, (left, right) in enumerate([("parameter", "meaning"), ("page", "which page, from 1"), ("width", "of the picture, in pixels"),
                                         ("imageType", "image/png or image/jpeg")]):
        y = 430 - 24 * row
        lines += [f"60 {y} 384 24 re S", f"180 {y} m 180 {y + 24} l S", text(68, y + 8, 11, left, "F2" if row == 0 else "F3"),
                  text(188, y + 8, 11, right, "F2" if row == 0 else "F1")]
    return [*lines, text(62, 60, 11, "Page 2")]


def document() -> bytes:
    """The bytes of the file."""
    pages = [cover(), contents()]
    kids = " ".join(f"{6 + 2 * i} 0 R" for i in range(len(pages)))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} /MediaBox [0 0 {WIDTH} {HEIGHT}] >>"]
    objects += [f"<< /Type /Font /Subtype /Type1 /BaseFont /{name} /Encoding /WinAnsiEncoding >>" for name in ("Helvetica", "Helvetica-Bold", "Courier")]
    for i, page in enumerate(pages):
        stream = "\n".join(page)
        objects.append(f"<< /Type /Page /Parent 2 0 R /Contents {7 + 2 * i} 0 R /Resources << /Font << /F1 3 0 R /F2 4 0 R /F3 5 0 R >> >> >>")
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return out + end.encode()
