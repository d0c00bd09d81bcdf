"""The demo tasks' data files are what their generator makes."""

from workers.harness.tasks.demo import generate


def test_the_committed_files_are_what_the_generator_makes() -> None:
    for path, contents in generate.render().items():
        assert path.read_text(encoding="utf-8") == contents, f"run python -m {generate.__name__}"


def test_no_test_document_occurs_in_what_a_demo_model_is_trained_on() -> None:
    for kind in generate.MAKERS:
        splits = generate.documents(kind)
        assert not [document for document in splits["test"] if document in splits["train"]]
        assert len(splits["train"]) == 2000
        assert len(splits["test"]) == 100


def test_training_text_has_every_training_document_once() -> None:
    text = "".join(generate.training_text())
    for kind in generate.MAKERS:
        train = generate.documents(kind)["train"]
        assert (
            sum(text.count(piece) for piece in {generate.text(kind, document) + "\n\n" for document in train}) == 2000
        )
