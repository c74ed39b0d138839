# Roles of the broker's pods on EKS: by the cluster's OIDC provider (IRSA) or by EKS Pod Identity.

locals {
  tags     = merge(var.tags, { Name = var.name })
  services = toset(["api", "worker"])
  # arn:aws:iam::ACCOUNT:oidc-provider/ISSUER
  issuer = var.oidc_provider_arn == null ? null : split("oidc-provider/", var.oidc_provider_arn)[1]

  by_oidc = {
    for service in local.services : service => [for issuer in local.issuer[*] : {
      Sid       = "PodsOfTheServiceAccount"
      Effect    = "Allow"
      Action    = "sts:AssumeRoleWithWebIdentity"
      Principal = { Federated = var.oidc_provider_arn }
      Condition = { StringEquals = {
        "${issuer}:aud" = "sts.amazonaws.com"
        "${issuer}:sub" = "system:serviceaccount:${var.namespace}:${var.service_accounts[service]}"
      } }
    }]
  }

  by_pod_identity = [for cluster in var.pod_identity_cluster[*] : {
    Sid       = "PodIdentity"
    Effect    = "Allow"
    Action    = ["sts:AssumeRole", "sts:TagSession"]
    Principal = { Service = "pods.eks.amazonaws.com" }
  }]

  # KEDA measures the queue as the workload: its own role may take the worker's.
  by_keda = {
    api = []
    worker = [for arn in var.keda_operator_role_arn[*] : {
      Sid       = "KedaMeasuresTheQueue"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { AWS = arn }
    }]
  }
}

resource "aws_iam_role" "this" {
  for_each = local.services

  name                 = "${var.name}-${each.key}"
  path                 = var.role_path
  permissions_boundary = var.permissions_boundary_arn
  tags                 = local.tags
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = concat(local.by_oidc[each.key], local.by_pod_identity, local.by_keda[each.key])
  })

}

resource "aws_iam_role_policy" "this" {
  for_each = aws_iam_role.this

  name   = "work"
  role   = each.value.id
  policy = var.policies[each.key]
}

resource "aws_eks_pod_identity_association" "this" {
  for_each = var.pod_identity_cluster == null ? toset([]) : local.services

  cluster_name    = var.pod_identity_cluster
  namespace       = var.namespace
  service_account = var.service_accounts[each.key]
  role_arn        = aws_iam_role.this[each.key].arn
  tags            = local.tags
}
