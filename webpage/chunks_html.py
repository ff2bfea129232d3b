"""The per-chunk analysis in HTML: an overview of the recording, chunks on a time axis that play, passages."""

from collections.abc import Sequence

from scoring.findings import FINDING_WORDS
from scoring.passages import ChunkScore, SuspiciousRegion, clock, passage_text
from scoring.verdict import Judge
from webpage.cards import ICONS, escape, scrollable
from webpage.formatting import two_decimals
from webpage.gauge import chunk_counts
from webpage.jobs import CheckedFile
from webpage.limits import MAX_CHUNK_BUTTONS
from webpage.verdict_html import play_button

CHUNK_PIXELS = 46  # wide enough for a score
TICK_PIXELS = 300  # between two times below the chunks


def chunk_timeline(checked: CheckedFile, address: str) -> str:
    """Overview, chunks and suspicious passages; `address` is the sound's URL.

    Of a long recording only `MAX_CHUNK_BUTTONS` chunks are buttons: those around the decisive passage.
    """
    result, judge = checked.result, checked.judge
    shown = _window(result.chunks, result.worst)
    start, end = shown[0].start, shown[-1].end
    width = CHUNK_PIXELS * len(shown) // 2  # pixels, at least: neighbours overlap, so they are in two rows
    first = next((chunk for chunk in shown if result.worst and chunk.start >= result.worst.start), None)
    buttons = "".join(_chunk_button(chunk, start, end, judge, chunk is first) for chunk in shown)
    ticks = max(4, width // TICK_PIXELS)
    axis = "".join(f"<span>{clock(start + (end - start) * tick / ticks)}</span>" for tick in range(ticks + 1))
    lane = f'<div style="min-width:{width}px"><div class="lane">{buttons}</div><div class="ends">{axis}</div></div>'
    overview = ""
    if width > 900:
        part = f" Below: {clock(start)}–{clock(end)}." if len(shown) < len(result.chunks) else ""
        overview = f"<h3>The whole recording</h3>{_overview(result.chunks, judge)}<p class='note'>{part}</p>"
    return f"""<div class="chunks"><p>The model hears {judge.chunk_seconds:.0f} s at a time. Press a chunk to play
it.</p>
{chunk_counts(result, judge)}{overview}{scrollable(lane, "Chunks")}
<audio controls preload="metadata" aria-label="The recording" src="{escape(address)}"></audio>
<h3>Suspicious passages</h3>{_passage_list(checked)}</div>"""


def _window(chunks: Sequence[ChunkScore], region: SuspiciousRegion | None) -> Sequence[ChunkScore]:
    """The chunks around `region`, or the first ones."""
    middle = 0 if region is None else sum(chunk.end < (region.start + region.end) / 2 for chunk in chunks)
    first = min(max(0, middle - MAX_CHUNK_BUTTONS // 2), max(0, len(chunks) - MAX_CHUNK_BUTTONS))
    return chunks[first : first + MAX_CHUNK_BUTTONS]


def _overview(chunks: Sequence[ChunkScore], judge: Judge) -> str:
    """A strip of the whole recording, coloured by finding; neighbours of one finding are one piece."""
    pieces: list[list] = []
    for chunk in chunks:
        kind = "silent" if chunk.score is None else judge.finding_of(chunk.score)
        if pieces and pieces[-1][0] == kind:
            pieces[-1][2] = chunk.end
        else:
            pieces.append([kind, pieces[-1][2] if pieces else chunk.start, chunk.end])
    total = chunks[-1].end
    strip = "".join(
        f'<b class="{kind}" style="width:{100 * (end - start) / total:.3f}%"></b>' for kind, start, end in pieces
    )
    return f"""<div class="strip" role="img" aria-label="The findings over the whole recording">{strip}</div>
<div class="ends"><span>0:00</span><span>{clock(total)}</span></div>"""


def _chunk_button(chunk: ChunkScore, first: float, last: float, judge: Judge, decisive: bool) -> str:
    """A button placed where the chunk lies between the seconds `first` and `last`. decisive: it is shown at first."""
    start, end, score = chunk
    kind = "silent" if score is None else judge.finding_of(score)
    outcome = "silent" if score is None else f"score {two_decimals(score)}, {FINDING_WORDS[kind]}"
    place = f"left:{100 * (start - first) / (last - first):.3f}%;width:{100 * (end - start) / (last - first):.3f}%"
    label = f"{passage_text(SuspiciousRegion(start, end, 0))}, {outcome}"
    return (
        f'<button class="chunk {kind}" style="{place}" data-start="{start:.3f}" data-end="{end:.3f}"'
        f'{" data-show" if decisive else ""} title="{label}" aria-label="Play {label}">'
        f"{ICONS.get(kind, '–')} {two_decimals(score)}</button>"
    )


def _passage_list(checked: CheckedFile) -> str:
    passages = "".join(
        f"<li>{play_button(region)} down to {two_decimals(region.score)}</li>" for region in checked.result.regions
    )
    return f"<ul>{passages}</ul>" if passages else "<p>None: no chunk is at or below the threshold.</p>"
