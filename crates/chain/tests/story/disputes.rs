//! What becomes of receipts that are disputed: one that nobody defends, one that nobody attacks, and two that
//! contradict each other.

use assay_chain::{
    AddressBook, Chain, ChainError, Claim, Contract, Equivocation, Event, Filing, Move, Side,
};
use assay_protocol::{
    Accusation, Address, Amount, Arithmetic, Assurance, Audit, B256, Branch, ChainId, Channel,
    ChannelId, Doubt, Finish, Key, Manifest, OpenStep, Opening, Order, Parts, Phase, Receipt,
    Sampler, Shape, StepLeaf, Tensor, U256, Voucher, token_root,
};

use super::{ASY, key};

const BOND: u128 = 100 * ASY;
const CLOCK: u64 = 10;

/// A story's people and things.
struct Scene<'a> {
    url: &'a str,
    book: &'a AddressBook,
    /// Who opens disputes; also the buyer.
    challenger: Chain,
    /// Who serves, by its owner's key.
    owner: Chain,
    /// The key that signs its receipts.
    operator: Key,
    manifest: Manifest,
}

/// Disputes about answers paid through `channel`, whose claimed position is `claimed`.
pub(crate) async fn told(
    url: &str,
    book: &AddressBook,
    admin: &Chain,
    channel: &Channel,
    claimed: Amount,
) {
    admin.send_asy(key(2).address(), Amount(3 * BOND)).await.unwrap();
    let scene = Scene {
        url,
        book,
        challenger: Chain::open(url, book.clone(), Some(&key(2))).await.unwrap(),
        owner: Chain::open(url, book.clone(), Some(&key(1))).await.unwrap(),
        operator: Key::from_bytes([5; 32]).unwrap(),
        manifest: manifest(),
    };
    let terms = scene.challenger.dispute_terms().await.unwrap();
    assert_eq!((terms.bond, terms.clock), (Amount(BOND), CLOCK));
    scene.filed().await;
    scene.left_alone(channel, claimed).await;
    scene.moved().await;
    scene.contradicted().await;
    // Who is convicted at once was never disputed, yet has a number for the reward.
    assert_eq!(scene.owner.disputes_about(key(1).address()).await.unwrap(), [1, 2, 3]);
    assert_eq!(scene.owner.disputes().await.unwrap(), 6);
    // Whatever bonds were taken have been paid.
    let disputes = book.get(Contract::Disputes).unwrap();
    assert_eq!(admin.asy_of(disputes).await.unwrap(), Amount(0));
}

/// A model of one layer; nobody ever ran it.
fn manifest() -> Manifest {
    Manifest {
        version: Manifest::VERSION,
        family: 0,
        shape: Shape {
            width: 128,
            layers: 1,
            heads: 4,
            kvHeads: 2,
            headDim: 32,
            hidden: 256,
            vocab: 300,
            context: 64,
        },
        arithmetic: Arithmetic {
            group: 32,
            kvGroup: 32,
            activation: 0,
            ropePairing: 0,
            attentionQ30: 1,
            normEps: 1,
            residual: 12,
            outputNorm: 12,
            gate: 12,
            logits: 12,
            gain: 12,
            sites: vec![12; 6].into(),
        },
        tensors: vec![Tensor { kind: 1, rows: 300, columns: 128, leaf: 0 }],
        parts: Parts { weights: B256::repeat_byte(1), ..Parts::default() },
        eos: vec![2],
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, ChainError>, word: &str) {
    let Err(ChainError::Refused(refusal)) = result else { panic!("{result:?}") };
    assert!(refusal.reason.starts_with(word), "{refusal}");
}

impl Scene<'_> {
    /// An answer of two tokens to the `nonce`th order.
    fn filing(&self, nonce: u64) -> Filing {
        let chain = ChainId(self.book.chain_id);
        let sampler = Sampler::greedy();
        let order = Order {
            buyer: key(2).address(),
            market: self.book.get(Contract::Receipts).unwrap(),
            model: self.manifest.id(),
            request: B256::ZERO,
            prompt: token_root(&[1, 7, 9]),
            prompt_tokens: 3,
            max_tokens: 2,
            sampler: sampler.hash(),
            assurance: Assurance::Replayable,
            audit: Audit::Public,
            asset: Address::ZERO,
            max_price: Amount(100 * ASY),
            deadline: u64::from(u32::MAX),
            nonce: U256::from(nonce),
            grant: B256::ZERO,
        };
        let receipt = Receipt {
            order: order.hash(chain),
            provider: self.operator.address(),
            output: token_root(&[5, 6]),
            output_tokens: 2,
            text: B256::repeat_byte(3),
            finish: Finish::Length,
            state: B256::repeat_byte(4),
            assurance: Assurance::Replayable,
            asset: Address::ZERO,
            price: Amount(0),
            channel: ChannelId(B256::ZERO),
            channel_before: Amount(0),
            channel_after: Amount(0),
            started: 1_000,
            finished: 2_000,
        };
        let order_signature = order.sign(chain, &key(2));
        self.receipted(Filing {
            order,
            order_signature,
            receipt_signature: order_signature,
            receipt,
            sampler,
            posting: None,
        })
    }

    /// With the provider's signature of the receipt as it stands.
    fn receipted(&self, filing: Filing) -> Filing {
        let receipt_signature = filing.receipt.sign(ChainId(self.book.chain_id), &self.operator);
        Filing { receipt_signature, ..filing }
    }

    fn digest(&self, filing: &Filing) -> B256 {
        filing.receipt.digest(ChainId(self.book.chain_id))
    }

    async fn asy(&self, account: Address) -> u128 {
        self.owner.asy_of(account).await.unwrap().0
    }

    async fn bonded(&self) -> u128 {
        self.owner.provider(key(1).address()).await.unwrap().unwrap().bonded.0
    }

    async fn phase(&self, dispute: u64) -> Phase {
        self.owner.dispute(dispute).await.unwrap().unwrap().phase
    }

    /// Lets `seconds` pass, by methods that development chains share.
    async fn wait(&self, seconds: u64) {
        let http = reqwest::Client::new();
        // Blocks made in a hurry run ahead of the clock, so it is the chain's time that counts.
        let then = self.owner.client().time().await.unwrap() + seconds;
        for (method, params) in [("evm_setNextBlockTimestamp", vec![then]), ("evm_mine", vec![])] {
            let call = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
            let request = http.post(self.url).header("content-type", "application/json");
            let said = request.body(call.to_string()).send().await.unwrap().text().await.unwrap();
            assert!(!said.contains("error"), "{method}: {said}");
        }
    }

    /// Only a model that was filed can be judged; twice is as good as once.
    async fn filed(&self) {
        let id = self.manifest.id();
        assert!(!self.owner.is_filed(id).await.unwrap());
        refused(self.challenger.open_dispute(&self.filing(0)).await, "NotFiled");
        refused(self.challenger.facts_of(&self.filing(0)).await, "NotFiled");
        for _ in 0..2 {
            self.owner.file_spec(&self.manifest).await.unwrap();
            assert!(self.owner.is_filed(id).await.unwrap());
        }
        let bad = Manifest { family: 9, ..self.manifest.clone() };
        refused(self.owner.file_spec(&bad).await, "Unknown");
    }

    /// Silence loses: the provider's in the first dispute, the challenger's in the second.
    async fn left_alone(&self, channel: &Channel, claimed: Amount) {
        let (one, two) = (self.paid_for(channel, claimed).await, self.filing(2));
        let (buyer, owner) = (key(2).address(), key(1).address());
        let before = (self.asy(buyer).await, self.asy(owner).await);

        let (first, _) = self.challenger.open_dispute(&one).await.unwrap();
        let (second, _) = self.challenger.open_dispute(&two).await.unwrap();
        assert_eq!((first, second, self.owner.disputes().await.unwrap()), (1, 2, 2));
        assert_eq!(self.asy(buyer).await, before.0 - 2 * BOND);
        refused(self.challenger.play(&[Move::Timeout { dispute: first }]).await, "TooEarly");

        // A stranger brings the provider's commitment; without its signature it may not.
        let stranger = Chain::open(self.url, self.book.clone(), Some(&key(0))).await.unwrap();
        let trace = B256::repeat_byte(7);
        let commit = Move::Commit { dispute: second, trace, signature: None };
        refused(stranger.play(std::slice::from_ref(&commit)).await, "NotDefender");
        let wrong = stranger.signed(commit.clone(), &key(0)).await.unwrap();
        refused(stranger.play(&[wrong]).await, "NotDefender");
        let commit = stranger.signed(commit, &self.operator).await.unwrap();
        stranger.play(&[commit]).await.unwrap();
        let standing = self.owner.dispute(second).await.unwrap().unwrap();
        assert_eq!((standing.phase, standing.turn()), (Phase::Pick, Some(Side::Challenger)));
        assert_eq!((standing.trace, standing.positions, standing.steps), (trace, 4, 34));
        assert_eq!(standing.last_second(), Some(standing.moved_at + CLOCK));

        self.wait(CLOCK + 2).await;
        let end = [first, second].map(|dispute| Move::Timeout { dispute });
        stranger.play(&end).await.unwrap();
        assert_eq!((self.phase(first).await, self.phase(second).await), (Phase::Won, Phase::Lost));

        // The first: slashed by a fifth, a tenth of that to the challenger, the rest burned, and jailed.
        let (stake, supply) = (self.bonded().await, self.owner.asy_supply().await.unwrap().0);
        let receipt = self.digest(&one);
        let follow = [Move::Punish { receipt }, Move::Close { dispute: first }];
        stranger.play(&follow).await.unwrap();
        let slash = stake / 5;
        assert_eq!(self.bonded().await, stake - slash);
        assert_eq!(self.owner.asy_supply().await.unwrap().0, supply - slash * 9 / 10);
        assert_eq!(self.asy(buyer).await, before.0 - BOND + slash / 10);
        let provider = self.owner.provider(owner).await.unwrap().unwrap();
        assert!(provider.jailed_until.is_some());
        refused(stranger.play(&[Move::Punish { receipt }]).await, "AlreadyPunished");

        // Its buyer has the money back, which the channel's till still held.
        let (receipt, channel) = (Box::new(one.receipt.clone()), Box::new(channel.clone()));
        let price = receipt.price.0;
        stranger.play(&[Move::Refund { receipt, channel }]).await.unwrap();
        assert_eq!(self.asy(buyer).await, before.0 - BOND + slash / 10 + price);

        // The second: its bond is the provider's, once.
        stranger.play(&[Move::Close { dispute: second }]).await.unwrap();
        assert_eq!(self.asy(owner).await, before.1 + BOND);
        refused(stranger.play(&[Move::Close { dispute: second }]).await, "NothingDue");
        let case = self.owner.case(self.digest(&two)).await.unwrap().unwrap();
        assert!(!case.guilty && case.owner == owner);
        let case = self.owner.case(self.digest(&one)).await.unwrap().unwrap();
        assert!(case.guilty && case.punished && case.first == first);
    }

    /// An answer that moved `channel` by 5 ASY, which its provider has claimed.
    async fn paid_for(&self, channel: &Channel, claimed: Amount) -> Filing {
        let channels = self.owner.channels().unwrap();
        let price = Amount(5 * ASY);
        let after = Amount(claimed.0 + price.0);
        let voucher = Voucher { channel: channel.id(&channels), claimable: after };
        let signature = voucher.sign(&channels, &key(2));
        let claim = Claim { channel: channel.clone(), claimable: after, signature, claimed: after };
        self.owner.claim(&[claim]).await.unwrap();
        let mut filing = self.filing(1);
        filing.receipt.price = price;
        filing.receipt.channel = channel.id(&channels);
        (filing.receipt.channel_before, filing.receipt.channel_after) = (claimed, after);
        self.receipted(filing)
    }

    /// Every move of a game but its proof, and what readers hear of them.
    async fn moved(&self) {
        let from = self.owner.height().await.unwrap() + 1;
        let filing = self.filing(3);
        let (dispute, _) = self.challenger.open_dispute(&filing).await.unwrap();
        let facts = self.challenger.facts_of(&filing).await.unwrap();
        let case = self.owner.case(self.digest(&filing)).await.unwrap().unwrap();
        assert_eq!(assay_protocol::keccak256(&facts), case.facts);
        // Two positions, then a root of which the provider knows only four nodes at the top.
        let nodes = [1, 2, 3, 4].map(B256::repeat_byte);
        let join = |a: B256, b: B256| assay_protocol::keccak256([a, b].concat());
        let trace = join(join(nodes[0], nodes[1]), join(nodes[2], nodes[3]));
        self.owner.play(&[Move::Commit { dispute, trace, signature: None }]).await.unwrap();
        let branch = Branch { turns: 0, node: trace, proof: Vec::new() };
        let stranger = Chain::open(self.url, self.book.clone(), Some(&key(0))).await.unwrap();
        let pick = Move::Pick { dispute, branch };
        refused(stranger.play(std::slice::from_ref(&pick)).await, "NotChallenger");
        self.challenger.play(&[pick]).await.unwrap();
        let wrong = Move::Reveal { dispute, nodes: nodes[..2].to_vec() };
        refused(self.owner.play(&[wrong]).await, "WrongCount");
        let reveal = Move::Reveal { dispute, nodes: nodes.to_vec() };
        stranger.play(&[reveal]).await.unwrap();
        let down =
            Branch { turns: 2, node: nodes[2], proof: vec![nodes[3], join(nodes[0], nodes[1])] };
        let step = OpenStep { leaf: StepLeaf::default(), proof: vec![], facts: facts.clone() };
        let accusation =
            Accusation { step: step.clone(), tensor: None, element: 0, doubt: Doubt::Element };
        let name = Move::Name { dispute, branch: down.clone(), accusation: Box::new(accusation) };
        refused(self.challenger.play(&[name]).await, "WrongDepth");
        let empty = Move::Empty { dispute, branch: down.clone(), step: step.clone() };
        refused(self.challenger.play(&[empty]).await, "WrongDepth");
        let within = Move::PickWithin { dispute, branch: down.clone(), step };
        refused(self.challenger.play(&[within]).await, "WrongDepth");
        self.challenger.play(&[Move::Pick { dispute, branch: down }]).await.unwrap();
        let standing = self.owner.dispute(dispute).await.unwrap().unwrap();
        assert_eq!((standing.depth, standing.path, standing.point), (2, 2, nodes[2]));
        for early in [
            Move::List { dispute, values: vec![1], signature: None },
            Move::Choose { dispute, entry: 1 },
        ] {
            refused(self.owner.play(&[early]).await, "WrongPhase");
        }

        self.wait(CLOCK + 2).await;
        let follow = [Move::Timeout { dispute }, Move::Close { dispute }];
        let mined = self.challenger.play(&follow).await.unwrap();
        assert!(self.owner.proofs_in(mined.hash).await.unwrap().is_empty());
        let events = self.owner.events(from, mined.block).await.unwrap();
        let told: Vec<Event> =
            events.into_iter().map(|found| found.event).filter(|e| e.dispute().is_some()).collect();
        let receipt = self.digest(&filing);
        let (owner, challenger) = (key(1).address(), key(2).address());
        let order = filing.order.hash(ChainId(self.book.chain_id)).0;
        assert_eq!(
            told,
            [
                Event::Disputed { dispute, receipt, owner, challenger, order },
                Event::Committed { dispute, trace },
                Event::Picked { dispute, depth: 0, path: 0, node: trace },
                Event::Revealed { dispute, nodes: nodes.to_vec() },
                Event::Picked { dispute, depth: 2, path: 2, node: nodes[2] },
                Event::Decided { dispute, receipt, phase: Phase::Won },
                Event::Convicted { dispute, receipt, owner },
                Event::Closed { dispute, to: challenger, bond: Amount(BOND) },
            ]
        );
        // All but whose the reward is, which is said of the receipt.
        let own = self.owner.events_of(dispute, 0).await.unwrap();
        assert_eq!(own.len(), told.len() - 1);
        assert!(own.iter().all(|happened| told.contains(&happened.event)));
    }

    /// Who signs two answers to one order is convicted at once, for both.
    async fn contradicted(&self) {
        let one = self.filing(4);
        let mut other = one.clone();
        other.receipt.state = B256::repeat_byte(8);
        let other = self.receipted(other);
        let pair = |one: &Filing, other: &Filing| {
            Move::Equivocate(Box::new(Equivocation {
                receipts: [one.receipt.clone(), other.receipt.clone()],
                signatures: [one.receipt_signature, other.receipt_signature],
                index: 0,
                tokens: [Opening::default(), Opening::default()],
            }))
        };
        refused(self.challenger.play(&[pair(&one, &one)]).await, "NotAPair");
        refused(
            self.challenger.play(&[Move::Contradict(Box::new(one.clone()))]).await,
            "NoContradiction",
        );
        let stake = self.bonded().await;
        let receipts = [self.digest(&one), self.digest(&other)];
        let mut moves = vec![pair(&one, &other)];
        moves.extend(receipts.map(|receipt| Move::Punish { receipt }));
        self.challenger.play(&moves).await.unwrap();
        assert_eq!(self.bonded().await, stake * 4 / 5 * 4 / 5);

        let mut dear = self.filing(5);
        dear.receipt.price = Amount(101 * ASY);
        let dear = self.receipted(dear);
        self.challenger.play(&[Move::Contradict(Box::new(dear.clone()))]).await.unwrap();
        assert!(self.owner.case(self.digest(&dear)).await.unwrap().unwrap().guilty);
    }
}
